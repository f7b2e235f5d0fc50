"""The controller's service on a real store, with a broker and a link in memory whose knobs a test turns."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.adapters.emqx.containment.describe import described
from controller.adapters.sqlite.report_keys import SqliteReportKeys
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import UlidGenerator
from controller.domain.broker.inspection import BrokerInspection
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import ContainmentLevel, PolicySet, Remedy, RuleResponse
from controller.ports.broker import (
    AuthStrength,
    PlannedStage,
    PlanParameters,
    Proof,
    ProofStep,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    keep_no_subscriptions,
    was_there,
)
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import AccessRules, Ban, SubjectFilter, TableCounts, restriction
from controller.ports.errors import BrokerError, MessagesError
from controller.ports.inspection import DashboardLogin
from controller.ports.messages import ConnectionState, IncomingMessage
from controller.service.containment.enforcer import Enforcer
from controller.service.containment.identity_check import IdentityCheck
from controller.service.containment.outbox import EffectQueue, Outbox
from controller.service.containment.reconciler import Reconciler
from controller.service.fleet_state import FleetState
from controller.service.ingest.ingest import Ingest
from controller.service.ingest.keyring import DeviceKeyring
from controller.service.ingest.signatures import ReportSignatureVerifier, ReportSigningServices, SignatureRequirements
from controller.service.rollout.observations import RolloutObservations
from controller.service.timers import DeviceTimers
from controller.service.unit_of_work import CommitListener
from controller.service.waiting import Waiters
from tests.support import clocks
from tests.support.clocks import ManualClock
from tests.support.playbook import language, policies, rule

START = clocks.START
TELNET = RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=Remedy("service.disable", (("name", "telnetd"),)))
DOCKER = RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)


def starter() -> PolicySet:
    """Telnet restricts and is repaired; an open Docker API isolates for ten minutes."""
    return policies(
        rule("telnet", TELNET, check="!listening_ports.exists(p, p == 23)"),
        rule("docker", DOCKER, check="!exposed_ports.exists(p, p == 2375)"),
    )


@dataclass(slots=True)
class MemoryBroker:
    """A broker's tables; `fails` are raised one for each call, `grades` say who proved what."""

    clock: ManualClock
    bans_held: dict[str, Ban] = field(default_factory=dict)
    rules_held: dict[str, AccessRules] = field(default_factory=dict)
    grades: dict[str, AuthStrength] = field(default_factory=dict)
    is_open: bool = False  # it lets in clients without proof, so that it matters since when a session is there
    connected: dict[str, float] = field(default_factory=dict)  # since when, Unix seconds; missing: always
    fails: list[BrokerError] = field(default_factory=list)
    misses: int = 0  # proofs that will not hold
    calls: list[str] = field(default_factory=list)
    lacks: list[SettingChange] = field(default_factory=list)  # what a setup would change
    can_list_retained: bool = True
    options: list[tuple[str, bool]] = field(default_factory=list)  # of each containment

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.fails:
            raise self.fails.pop(0)

    def _proof(self, what: str) -> Proof:
        step = ProofStep(what, what.upper(), "memory", "200", 0.001)
        if self.misses:
            self.misses -= 1
            return Proof(False, "read back and not there", (step,))
        return Proof(True, "", (step,), cut_at=self.clock.at)

    def planned(self, client_id: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        return described(client_id, intent)

    async def restrict(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        keep_subscriptions: SaveSubscriptions = keep_no_subscriptions,
        kick: bool = False,
    ) -> Proof:
        del keep_subscriptions
        self.options.append(("kick", kick))
        self._call(f"restrict {client_id}")
        if self.rules_held.get(client_id) != restriction(client_id):
            await keep(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        return self._proof("restrict")

    async def isolate(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
    ) -> Proof:
        self.options.append(("clear_retained", clear_retained))
        self._call(f"isolate {client_id}")
        ban = Ban("clientid", client_id, f"cordon/{case}", reason, self.clock.at, until)
        self.bans_held.setdefault(client_id, ban)
        if self.rules_held.get(client_id) != restriction(client_id):
            await keep(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        return self._proof("isolate")

    async def end_isolation(self, client_id: str, keep: SaveRules) -> Proof:
        self._call(f"end_isolation {client_id}")
        if self.rules_held.get(client_id) != restriction(client_id):
            await keep(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        self._lift(client_id)
        return self._proof("end_isolation")

    async def release(
        self, client_id: str, kept: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        del subscriptions
        self._call(f"release {client_id}")
        self._lift(client_id)
        if self.rules_held.get(client_id) == restriction(client_id):
            del self.rules_held[client_id]
            if kept:
                self.rules_held[client_id] = kept
        return self._proof("release")

    def _lift(self, client_id: str) -> None:
        ban = self.bans_held.get(client_id)
        if ban is not None and ban.is_ours:
            del self.bans_held[client_id]

    async def grade(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        self._call(f"grade {client_id}")
        return self.grade_then(client_id, heard_at)

    def grade_then(self, client_id: str, heard_at: float | None) -> AuthStrength:
        """The grade of who spoke then, as the port says."""
        grade = self.grades.get(client_id, AuthStrength.PROVEN)
        if heard_at is None or not self.is_open or grade not in (AuthStrength.PROVEN, AuthStrength.KNOWN):
            return grade
        return grade if was_there(self.connected.get(client_id, 0.0), heard_at) else AuthStrength.LATER

    async def admits_unproven(self) -> bool:
        return self.is_open

    async def lists_retained(self) -> bool:
        return self.can_list_retained

    async def bans(self) -> AsyncIterator[Ban]:
        self._call("bans")
        for ban in list(self.bans_held.values()):
            yield ban

    async def client_rules(self) -> AsyncIterator[tuple[str, AccessRules]]:
        for client_id, rules in list(self.rules_held.items()):
            yield client_id, rules

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        return [("memory", True, "5.8.9")]

    # BrokerSettings, of a broker that was set up in this run only

    async def was_set_up(self) -> bool:
        return False

    async def missing(self) -> Sequence[SettingChange]:
        return self.lacks

    async def put_back(self) -> Sequence[SettingChange]:
        made = [change for change in self.lacks if not change.danger]
        self.lacks = [change for change in self.lacks if change not in made]
        return made


@dataclass(slots=True)
class MemoryTables:
    """The tables of a `MemoryBroker` as its nodes list them; `missing` and `skipped` name rows a node lacks.

    `skipped` rows are only left out of listings, as by a page that moved while it was read.
    """

    broker: MemoryBroker
    addresses: tuple[str, ...] = ("memory",)
    missing: dict[str, set[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    def _lacks(self, node: str, client_id: str) -> bool:
        return client_id in self.missing.get(node, set())

    async def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        async for ban in self.broker.bans():
            if ban.kind != "clientid" or self._lacks(node, ban.who) or ban.who in self.skipped:
                continue
            if ban.is_ours or wanted(ban.who):
                yield ban

    async def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        async for client_id, rules in self.broker.client_rules():
            if wanted(client_id) and not self._lacks(node, client_id) and client_id not in self.skipped:
                yield client_id, rules

    async def counts(self, node: str) -> TableCounts:
        held = (self.broker.bans_held, self.broker.rules_held)
        bans, rules = (sum(not self._lacks(node, one) for one in table) for table in held)
        return TableCounts(bans, rules)

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        return None if self._lacks(node, client_id) else self.broker.bans_held.get(client_id)

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        return None if self._lacks(node, client_id) else self.broker.rules_held.get(client_id)

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        self.broker.calls.append(f"write rules {client_id} at {node}")
        self.missing.get(node, set()).discard(client_id)
        self.broker.rules_held[client_id] = rules


@dataclass(slots=True)
class MemoryInspector:
    """Answers what it was given, by name; what is not there is silent."""

    answers: dict[str, Any] = field(default_factory=dict)
    logins: list[DashboardLogin | None] = field(default_factory=list)

    async def endpoints(self) -> BrokerInspection:
        return self._inspection()

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        self.logins.append(login)
        return self._inspection()

    def _inspection(self) -> BrokerInspection:
        return BrokerInspection(dict(self.answers), {}, START, 1000, ("http://10.0.0.1:18083",))


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

    def tell(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        return self.publish(topic, payload, expiry_seconds=expiry_seconds)

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        del expiry_seconds
        if self.confirm is not None:
            raise self.confirm
        self.sent.append((topic, payload))

    @property
    def state(self) -> ConnectionState:
        return ConnectionState(True, "memory", "5", START, "connected", self.resumed_at)


@dataclass(slots=True)
class World:
    """Everything of one controller."""

    clock: ManualClock
    broker: MemoryBroker
    tables: MemoryTables
    inspector: MemoryInspector
    link: MemoryLink
    store: SqliteStore
    keeper: FleetState
    enforcer: Enforcer
    outbox: Outbox
    ingest: Ingest
    timers: DeviceTimers
    reconciler: Reconciler
    logged: list[tuple[str, dict[str, object]]]
    signing: ReportSigningServices
    observations: RolloutObservations
    waiters: Waiters

    async def drain(self) -> None:
        """Carry out what is ready, one after the other, without waiting for retries."""
        await self.outbox.drain()

    def level(self, device_id: str) -> ContainmentLevel:
        """How far the device is cut off, as decided."""
        return self.keeper.devices[device_id].level

    async def audited(self, device_id: str) -> list[str]:
        """Kinds of the device's record, oldest first."""
        return [one.entry.kind for one in await self.store.audit(device_id=device_id, newest_first=False)]


@contextlib.asynccontextmanager
async def world(
    path: Path,
    policy_set: PolicySet | None = None,
    *,
    guards: FleetGuards = NO_GUARDS,
    clock: ManualClock | None = None,
    broker: MemoryBroker | None = None,
    listeners: Sequence[CommitListener] = (),
    **enforcing: bool,
) -> AsyncIterator[World]:
    """A controller on the store at `path`; opening the same path again is a restart, beside the same `broker`."""
    clock = clock or ManualClock()
    logged: list[tuple[str, dict[str, object]]] = []

    def log(event: str, fields: object) -> None:
        logged.append((event, dict(fields)))  # type: ignore[call-overload]  # a mapping, as the ports say

    store = await open_store(path, now=clock.now, log=log)
    try:
        broker, link = broker or MemoryBroker(clock), MemoryLink()
        tables, waiters = MemoryTables(broker), Waiters()
        effects, observations = EffectQueue(waiters.wake), RolloutObservations()
        keeper = FleetState(
            store,
            policy_set or starter(),
            language(),
            clock,
            UlidGenerator(),
            (effects, observations, waiters, *listeners),
            guards=guards,
        )
        keeper.load(await store.devices())
        books = await store.guard_books()
        keeper.take_charges((device, at) for ledger, device, at in books.charges if not ledger)
        keyring = DeviceKeyring(
            SqliteReportKeys(store, None), IdentityCheck(broker, link, clock).grade, store, clock, log
        )
        signing = ReportSigningServices(keyring, ReportSignatureVerifier(keyring, keeper.get, SignatureRequirements()))
        signing.seals.load(keeper.devices.values())
        enforcer = Enforcer(keeper, broker, link, lambda payload: b"signed:" + payload, **enforcing)
        outbox = Outbox(keeper, effects, enforcer, log, lambda: 0.0)
        await outbox.resume()
        yield World(
            clock, broker, tables, MemoryInspector(), link, store, keeper, enforcer, outbox,
            Ingest(link, keeper, log, None, signing.seals), DeviceTimers(keeper, 300.0),
            Reconciler(keeper, broker, tables, effects, 5.0, log, settings=broker), logged, signing,
            observations, waiters,
        )  # fmt: skip
    finally:
        await store.close()
