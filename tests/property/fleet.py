"""A small fleet under a real controller that can be killed at any time, and a broker with scripted failures."""

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.domain.containment.plan import Subject
from controller.domain.effects import AuditEntry
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.policy.model import ContainmentLevel, PolicySet, RepeatOffenderTerms, RuleResponse
from controller.ports.broker import (
    AuthStrength,
    Proof,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    save_no_subscriptions,
)
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerUnreachableError
from controller.service.containment.operator_actions import OperatorActions
from controller.service.containment.waivers import WaiverService
from controller.service.unit_of_work import UnitOfWork
from tests.support.clocks import ManualClock
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.memory_broker import MemoryBroker
from tests.support.persons import put_holder, token_of
from tests.support.playbook import policies, rule
from tests.support.reports import full, heartbeat, incoming

DEVICES: Final = tuple(f"edge-{number}" for number in range(6))
CLAIMED: Final = "edge-3"  # its sessions are not authenticated
WAIVED: Final = "edge-4"  # the device of all waivers
PROTECTED: Final = "edge-5"
LIMIT: Final = 2  # devices contained by policy within WINDOW
WINDOW: Final = 600.0  # seconds
FRESH: Final = 300.0  # seconds
BY_HAND: Final = 3  # devices that one operator may contain
TELNET, DOCKER, SLOW, SHADOW = 23, 2375, 24, 25
OPENS: Final = {TELNET: "p/telnet", DOCKER: "p/docker", SLOW: "p/slow", SHADOW: "p/shadow"}


def baseline() -> PolicySet:
    """One rule for each port: immediate, isolating with repetition, slow, and in shadow mode."""

    def port(name: str, number: int, response: RuleResponse, *, shadow: bool = False) -> Any:
        return rule(name, response, check=f"!listening_ports.exists(p, p == {number})", shadow=shadow)

    return policies(
        port("telnet", TELNET, RuleResponse(contain=ContainmentLevel.RESTRICTED)),
        port(
            "docker",
            DOCKER,
            RuleResponse(
                contain=ContainmentLevel.ISOLATED, isolate_for=120.0, repeat=RepeatOffenderTerms(3600.0, 2.0, 900.0)
            ),
        ),
        port("slow", SLOW, RuleResponse(contain=ContainmentLevel.RESTRICTED, consecutive=2, grace=60.0, passing=2)),
        port("shadow", SHADOW, RuleResponse(contain=ContainmentLevel.ISOLATED), shadow=True),
    )


@dataclass(slots=True)
class FailingBroker(MemoryBroker):
    """Each call goes as the next word of `fate` says; without one it goes well.

    `refuse`: nothing is done. `lose`: it is done, and nobody hears of it. `doubt`: it is done, and not seen to hold.
    """

    fate: list[str] = field(default_factory=list)

    def _next(self) -> str:
        return self.fate.pop(0) if self.fate else "well"

    async def _fated(self, made: Any) -> Proof:
        word = self._next()
        if word == "refuse":
            made.close()
            raise BrokerUnreachableError("no node answered")
        proof: Proof = await made
        if word == "lose":
            raise BrokerUnreachableError("the answer was lost")
        return Proof(False, "not seen to hold", proof.steps) if word == "doubt" else proof

    async def restrict(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        save_subscriptions: SaveSubscriptions = save_no_subscriptions,
        kick: bool = False,
        violates: bool = False,
    ) -> Proof:
        del violates
        return await self._fated(
            MemoryBroker.restrict(self, subject, save_rules, save_subscriptions=save_subscriptions, kick=kick)
        )

    async def isolate(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
        violates: bool = False,
    ) -> Proof:
        del violates
        made = MemoryBroker.isolate(
            self, subject, save_rules, case=case, reason=reason, until=until, clear_retained=clear_retained
        )
        return await self._fated(made)

    async def end_isolation(self, subject: Subject, save_rules: SaveRules) -> Proof:
        return await self._fated(MemoryBroker.end_isolation(self, subject, save_rules))

    async def release(
        self, subject: Subject, rules: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        return await self._fated(MemoryBroker.release(self, subject, rules, subscriptions))

    async def auth_strength(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        if self._next() == "refuse":
            raise BrokerUnreachableError("no node answered")
        return AuthStrength.CLAIMED if client_id == CLAIMED else self.strength_at(client_id, heard_at)


class Fleet:
    """The controller with its broker and devices; every method returns when its effects are done."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = Path(tempfile.mkdtemp(prefix="cordon-property-", dir=_memory()))
        self.clock = ManualClock()
        self.broker = FailingBroker(self.clock, is_open=True)
        self.audit: list[tuple[float, AuditEntry]] = []
        self._seq = 0
        self._stack = contextlib.AsyncExitStack()
        self.place: ControllerHarness
        self.guarding: OperatorActions
        self.waiving: WaiverService
        self.run(self._open())
        self.run(
            self.place.ingest.process_batch([incoming(one, full(one, 0, 22), at=self._moment()) for one in DEVICES])
        )

    def run(self, work: Any) -> Any:
        """The result of a coroutine."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Stops the controller and removes its files."""
        self.run(self._stack.aclose())
        self._loop.close()
        shutil.rmtree(self._folder)

    async def _open(self) -> None:
        guards = FleetGuards(
            BlastRadius(BlastRadiusLimits(LIMIT, 100.0, WINDOW)),
            protection=ProtectionRules(frozenset({PROTECTED})),
            fresh_for=FRESH,
        )
        path = self._folder / "cordon.db"
        limits = {"guards": {"by_hand": BY_HAND, "by_hand_window": "1h", "request_expiry": "2h"}}
        made = open_harness(
            path, baseline(), guards=guards, clock=self.clock, broker=self.broker, listeners=(self,), settings=limits
        )
        self.place = await self._stack.enter_async_context(made)
        for name in ("ada", "bob"):
            await put_holder(self.place.store, token_of(name))
        self.guarding, self.waiving = self.place.services.containment.operators, self.place.services.containment.waivers

    def on_commit(self, batch: UnitOfWork) -> None:
        """Keeps every audit entry for the invariants."""
        self.audit.extend(batch.audit)

    def restart(self) -> None:
        """Kills the process and starts another on the same store."""
        self.run(self._stack.aclose())
        self._stack = contextlib.AsyncExitStack()
        self.run(self._open())

    def kill_before_commit(self, device_id: str, *ports: int) -> None:
        """Kills the process after the decision about a report and before its commit."""

        async def killed(batch: UnitOfWork) -> None:
            raise _KilledError

        self.place.fleet.enqueue_commit = killed  # type: ignore[method-assign]  # nothing is stored
        with contextlib.suppress(_KilledError):
            self.report(device_id, *ports)
        self.restart()

    def report(self, device_id: str, *ports: int) -> None:
        """Sends a full report."""
        self._seq += 1
        message = incoming(device_id, full(device_id, self._seq, 22, *ports), at=self._moment())
        self.run(self.place.ingest.process_batch([message]))

    def reconnect(self, device_id: str) -> None:
        """Connects the genuine device, authenticated; an earlier session was an impostor's."""
        self.broker.connected[device_id] = self.clock.at

    def heartbeat(self, device_id: str) -> None:
        """Sends a heartbeat with the last digest."""
        self._seq += 1
        digest = devices_of(self.place.fleet)[device_id].digest
        self.run(
            self.place.ingest.process_batch(
                [incoming(device_id, heartbeat(device_id, self._seq, digest), at=self._moment())]
            )
        )

    def pass_time(self, seconds: float) -> None:
        """Advances the clock and handles what is due."""
        self.clock.at += seconds
        self.run(self.place.timers.tick())
        self.run(self.place.services.approvals.book.expire())
        self.run(self.waiving.expire())

    def carry_out(self) -> None:
        """Retries every effect, whatever its back-off."""
        for device_id in list(self.place.outbox.queue._lanes):
            self.place.outbox.queue.retry_now(device_id)
        self.run(self.place.drain())

    def _moment(self) -> float:
        return self.clock.at - START


class _KilledError(Exception):
    """The process ends during a commit."""


def _memory() -> str | None:
    """Returns a folder in memory, if there is one; power loss is not tested here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
