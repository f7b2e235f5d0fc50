"""The controller's services on a real store, built as in production, over a broker and a link in memory."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.revocation_marks import marks_path
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import UlidGenerator
from controller.api.context import Services
from controller.app.adapters import Adapters, BrokerAdapters, emqx_adapters
from controller.app.build import Controller, build
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import ContainmentLevel, PolicySet, Remedy, RuleResponse
from controller.ports.certificates import OwnCertificateFile
from controller.ports.errors import MessagesError
from controller.ports.leases import AllLeases, Leases
from controller.ports.messages import ConnectionState, IncomingMessage
from controller.ports.rollouts import RolloutTargets
from controller.ports.updates import UpdateRepository
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from controller.service.fleet_state import FleetState
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.signatures import ReportSigningServices
from controller.service.rollout.observations import PublishedTargets
from controller.service.settings.settings import Settings
from controller.service.timers import DeviceTimers
from controller.service.unit_of_work import CommitListener
from controller.service.waiting import Waiters
from tests.support import clocks
from tests.support.clocks import ManualClock
from tests.support.fleet_devices import devices_of
from tests.support.memory_broker import MemoryAccess, MemoryBroker, MemoryInspector, MemorySetup, MemoryTables
from tests.support.memory_sender import MemorySender
from tests.support.memory_users import MemoryUsers
from tests.support.playbook import language, policies, rule

START = clocks.START
TELNET = RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=Remedy("service.disable", (("name", "telnetd"),)))
SETTINGS: dict[str, Any] = {
    "mqtt": {"servers": ["mqtt://127.0.0.1:1"]},
    "emqx": {"api": ["http://127.0.0.1:1"], "key_file": "/nowhere"},
    "store": {"path": "/nowhere"},
    "policy": {"paths": ["/nowhere"]},
    "commands": {"signing_key": "/nowhere"},
}
COMMAND_KEYS = ("ed25519:" + "A" * 43 + "=",)
DOCKER = RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)


def starter() -> PolicySet:
    """Telnet restricts and is repaired; an open Docker API isolates for ten minutes."""
    return policies(
        rule("telnet", TELNET, check="!listening_ports.exists(p, p == 23)"),
        rule("docker", DOCKER, check="!exposed_ports.exists(p, p == 2375)"),
    )


@dataclass(slots=True)
class MemoryLink:
    """What was sent and acknowledged; `confirm` is raised by the next confirmed publish."""

    sent: list[tuple[str, bytes]] = field(default_factory=list)
    acknowledged: list[IncomingMessage] = field(default_factory=list)
    confirm: MessagesError | None = None
    takes: bool = True
    resumed_at: float | None = None  # monotonic seconds

    async def run(self) -> None:
        raise NotImplementedError

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        raise NotImplementedError

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        self.acknowledged.extend(messages)

    def publish(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        del expiry_seconds
        if self.takes:
            self.sent.append((topic, payload))
        return self.takes

    def publish_nowait(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        return self.publish(topic, payload, expiry_seconds=expiry_seconds)

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        del expiry_seconds
        if self.confirm is not None:
            raise self.confirm
        self.sent.append((topic, payload))

    @property
    def state(self) -> ConnectionState:
        return ConnectionState(True, "memory", "5", START, "connected", self.resumed_at)


class LogLines(list[tuple[str, dict[str, object]]]):
    """What was logged: events with their fields."""

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        self.append((event, dict(fields)))


_Loop = TypeVar("_Loop")


@dataclass(slots=True)
class ControllerHarness:
    """Everything of one controller."""

    clock: ManualClock
    broker: MemoryBroker
    tables: MemoryTables
    setup: MemorySetup
    inspector: MemoryInspector
    users: MemoryUsers
    link: MemoryLink
    store: SqliteStore
    controller: Controller
    logged: LogLines
    sender: MemorySender

    @property
    def services(self) -> Services:
        return self.controller.services

    @property
    def fleet(self) -> FleetState:
        return self.services.fleet

    @property
    def outbox(self) -> Outbox:
        return self.services.outbox

    @property
    def ingest(self) -> Ingest:
        return self.services.ingest

    @property
    def reconciler(self) -> Reconciler:
        return self.services.broker.reconciler

    @property
    def signing(self) -> ReportSigningServices:
        return self.services.signing

    @property
    def identity(self) -> IdentityServices:
        """Where the settings name an authority."""
        assert self.services.identity is not None
        return self.services.identity

    @property
    def waiters(self) -> Waiters:
        return self.services.waiters

    @property
    def timers(self) -> DeviceTimers:
        return self.loop(DeviceTimers)

    def loop(self, kind: type[_Loop]) -> _Loop:
        """The background loop of this class."""
        leader = self.controller.leadership.leader
        loops = (*self.controller.loops, *(() if leader is None else leader.loops))
        return next(loop for _, loop in loops if isinstance(loop, kind))

    async def drain(self) -> None:
        """Carry out what is ready, one after the other, without waiting for retries."""
        await self.outbox.drain()

    def level(self, device_id: str) -> ContainmentLevel:
        """How far the device is cut off, as decided."""
        return devices_of(self.fleet)[device_id].level

    async def audited(self, device_id: str) -> list[str]:
        """Kinds of the device's record, oldest first."""
        return [one.entry.kind for one in await self.store.audit(device_id=device_id, newest_first=False)]


@contextlib.asynccontextmanager
async def open_harness(
    path: Path,
    policy_set: PolicySet | None = None,
    *,
    guards: FleetGuards = NO_GUARDS,
    clock: ManualClock | None = None,
    broker: MemoryBroker | None = None,
    emqx: EmqxBroker | None = None,
    settings: Mapping[str, Any] | None = None,
    listeners: Sequence[CommitListener] = (),
    reload: Callable[[], PolicySet] | None = None,
    sign: Callable[[bytes], bytes] = lambda payload: b"signed:" + payload,
    updates: UpdateRepository | None = None,
    targets: RolloutTargets | None = None,
    own_certificates: tuple[OwnCertificateFile, ...] = (),
    leases: Leases | None = None,
) -> AsyncIterator[ControllerHarness]:
    """A controller on the store at `path`, with tables of `cordon.toml`; the same ones again: a restart."""
    clock, chosen, logged, told = clock or ManualClock(), policy_set or starter(), LogLines(), MemorySender()
    configured, store = _configured(settings), await open_store(path, now=clock.now, log=logged)
    try:
        broker, users = broker or MemoryBroker(clock), MemoryUsers(clock.at)
        link, tables, setup, inspector = MemoryLink(), MemoryTables(broker), MemorySetup(), MemoryInspector()
        memory = BrokerAdapters(broker, tables, MemoryAccess(broker), users, setup, inspector)
        adapters = Adapters(
            clock=clock,
            ids=UlidGenerator(),
            rand=lambda: 0.0,
            log=lambda part: _ignore if part == "record" else logged,
            store=store,
            revocation_marks=marks_path(store.path),
            messages=link,
            broker=memory if emqx is None else replace(emqx_adapters(emqx, configured), setup=setup),
            language=language(),
            load_policies=reload or (lambda: chosen),
            sign=sign,
            command_keys=COMMAND_KEYS,
            updates=updates,
            targets=targets or PublishedTargets(updates),
            own_certificates=own_certificates,
            sender=told,
            leases=leases or AllLeases("tests", "1.2", clock.at),
        )
        made = await _started(await build(configured, adapters, chosen, guards, *listeners))
        yield ControllerHarness(clock, broker, tables, setup, inspector, users, link, store, made, logged, told)
    finally:
        await store.close()


async def _started(controller: Controller) -> Controller:
    await controller.services.outbox.resume()
    return controller


def _configured(tables: Mapping[str, Any] | None) -> Settings:
    return Settings.model_validate({**SETTINGS, **(tables or {})})


def _ignore(_event: str, _fields: Mapping[str, object]) -> None:
    """Audit entries are read from the store."""
