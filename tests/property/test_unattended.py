"""Invariants of an unattended controller: any order of reports, operators, faults, kills and broker failures.

With more examples: CORDON_TEST_UNATTENDED=500 pytest tests/property/test_unattended.py
"""

import os
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.domain.accounts.caller import Caller, Credential
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.cases import POLICY
from controller.domain.device import Device, HoldReason
from controller.domain.events import ReleaseOrdered
from controller.domain.guards.approvals import ApprovalKind, ApprovalNotAllowedError, ApprovalRequest, ApprovalState
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.scopes import ALL
from controller.ports.broker_tables import restriction
from controller.service.containment.operator_actions import (
    OperatorRequest,
    ProtectedDeviceError,
    is_held,
    place_of_held,
)
from controller.service.containment.waivers import WaiverRequest
from tests.property.fleet import (
    BY_HAND,
    CLAIMED,
    DEVICES,
    DOCKER,
    FRESH,
    LIMIT,
    OPENS,
    PROTECTED,
    SHADOW,
    SLOW,
    TELNET,
    WAIVED,
    WINDOW,
    Fleet,
)
from tests.support.fleet_devices import devices_of
from tests.support.persons import person

pytestmark = pytest.mark.slow

EXAMPLES: Final = int(os.environ.get("CORDON_TEST_UNATTENDED", "40"))
_LEVELS: Final = {
    "p/telnet": ContainmentLevel.RESTRICTED,
    "p/docker": ContainmentLevel.ISOLATED,
    "p/slow": ContainmentLevel.RESTRICTED,
}
devices = st.sampled_from(DEVICES)
some_ports = st.lists(st.sampled_from([TELNET, DOCKER, SLOW, SHADOW]), max_size=2, unique=True).map(tuple)
fates = st.lists(st.sampled_from(["well", "refuse", "lose", "doubt"]), max_size=4)
operators = st.sampled_from([person("ada"), person("bob")])


class Unattended(RuleBasedStateMachine):
    """Keeps its own model of all reports and requests, and checks every change of a device against it."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.ports: dict[str, tuple[int, ...]] = dict.fromkeys(DEVICES, ())
        self.contact_at: dict[str, float] = dict.fromkeys(DEVICES, self.fleet.clock.at)
        self.automatic: dict[str, float] = {}  # device and when a policy contained it
        self.waived_until = 0.0
        self.waivers: list[str] = []
        self.by_hand: dict[str, dict[str, float]] = {}
        self.was_held_back = False  # the blast radius held a containment back before the present step

    def teardown(self) -> None:
        self.fleet.close()

    # --- steps --------------------------------------------------------------------------------------------------

    def perform(self, action: str, act: Any, *, reporter: str = "", requested: tuple[str, ...] = ()) -> None:
        """Performs the action and checks its changes.

        `reporter`: the device that sent a message; `requested`: the devices that an operator named.
        """
        before = dict(devices_of(self.fleet.place.fleet))
        self.was_held_back = any(
            state.pending is not None and state.pending.why is HoldReason.BLAST_RADIUS for state in before.values()
        )
        act()
        for device_id, after in devices_of(self.fleet.place.fleet).items():
            self._check(action, before[device_id], after, fresh=device_id == reporter, named=device_id in requested)

    def _check(self, action: str, before: Device, after: Device, *, fresh: bool, named: bool) -> None:
        new_case = after.case is not None and (before.case is None or before.case.case_id != after.case.case_id)
        if after.level.rank > before.level.rank or new_case:
            self._check_containment(action, before, after, named=named)
        if before.level is not ContainmentLevel.NONE and after.level is ContainmentLevel.NONE:
            self._check_release(action, before, after, fresh=fresh, named=named)
        if before.level is ContainmentLevel.ISOLATED and after.level is ContainmentLevel.RESTRICTED:
            assert named or action in ("time", "carried out"), f"{action}: stepped down"

    def _check_containment(self, action: str, before: Device, after: Device, *, named: bool) -> None:
        case, now = after.case, self.fleet.clock.at
        assert case is not None
        if action == "contained by hand":
            assert named, "another device than the operator named was contained"
            return
        device_id = after.device_id
        assert case.by == POLICY, f"{action}: contained without an operator or a policy"
        open_rules = {OPENS[port] for port in self.ports[device_id]} & _LEVELS.keys()
        if device_id == WAIVED and now < self.waived_until:
            open_rules.discard("p/telnet")
        reasons = {key for key in open_rules if _LEVELS[key].rank >= after.level.rank}
        assert reasons, f"{action}: {device_id} was contained without a cause"
        assert now - self.contact_at[device_id] <= FRESH, f"{action}: {device_id} was contained by old facts"
        if action == "let through":
            assert named, "another device than the operator approved was contained"
            return
        assert device_id != PROTECTED, f"{action}: a protected device was contained"
        assert action == "time" or not self.was_held_back, f"{action}: {device_id} was contained while others wait"
        self.automatic.setdefault(device_id, now)
        if now - self.automatic[device_id] >= WINDOW:
            self.automatic[device_id] = now
        recent = [each for each, at in self.automatic.items() if now - at < WINDOW]
        assert len(recent) <= LIMIT, f"{action}: {recent} within the window, {LIMIT} are allowed"

    def _check_release(self, action: str, before: Device, after: Device, *, fresh: bool, named: bool) -> None:
        assert before.case is not None
        if action == "carried out":
            # The broker did not authenticate the reporter: the containment was never carried out.
            assert before.case.by == POLICY
            assert before.case.proven_level is ContainmentLevel.NONE
            self.automatic.pop(after.device_id, None)
            return
        assert before.level is ContainmentLevel.RESTRICTED, f"{action}: an isolation went straight to none"
        if action == "released by hand":
            assert named
            return
        assert fresh, f"{action}: released without a message of the device"
        failing = {OPENS[port] for port in self.ports[after.device_id]}
        if after.device_id == WAIVED and self.fleet.clock.at < self.waived_until:
            failing.discard("p/telnet")
        assert not failing & set(before.case.causes), "released while a cause is open"
        assert self.fleet.clock.at >= before.case.hold_until, "released while an operator holds it"

    @rule(device=devices, ports=some_ports)
    def report(self, device: str, ports: tuple[int, ...]) -> None:
        self.ports[device], self.contact_at[device] = ports, self.fleet.clock.at
        self.perform("report", lambda: self.fleet.report(device, *ports), reporter=device)

    @precondition(lambda self: not self.fleet.place.outbox.queue.pending)
    @rule(device=devices, ports=some_ports)
    def impostor_reports_and_the_device_returns(self, device: str, ports: tuple[int, ...]) -> None:
        """At a broker without authentication an impostor's report contains no device."""
        broker, case = self.fleet.broker, devices_of(self.fleet.place.fleet)[device].case
        before = broker.rules_held.get(device), broker.bans_held.get(device)
        self.report(device, ports)
        self.fleet.reconnect(device)
        self.effects_are_carried_out()
        if case is None:
            assert (broker.rules_held.get(device), broker.bans_held.get(device)) == before, (
                "contained by an unauthenticated report"
            )

    @rule(ports=st.sampled_from([(TELNET,), (DOCKER,), ()]))
    def all_devices_report(self, ports: tuple[int, ...]) -> None:
        for device in DEVICES:
            self.report(device, ports)

    @rule(device=devices)
    def heartbeat(self, device: str) -> None:
        self.contact_at[device] = self.fleet.clock.at
        self.perform("heartbeat", lambda: self.fleet.heartbeat(device), reporter=device)

    @rule(seconds=st.sampled_from([1.0, 61.0, 121.0, 301.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.perform("time", lambda: self.fleet.pass_time(seconds))

    @rule(fate=fates)
    def broker_fails(self, fate: list[str]) -> None:
        self.fleet.broker.fate = list(fate)

    @rule()
    def effects_are_carried_out(self) -> None:
        self.perform("carried out", self.fleet.carry_out)

    @rule()
    def controller_is_killed(self) -> None:
        self.perform("killed", self.fleet.restart)

    @rule(device=devices, ports=some_ports)
    def controller_is_killed_before_the_commit(self, device: str, ports: tuple[int, ...]) -> None:
        self.perform("killed", lambda: self.fleet.kill_before_commit(device, *ports))

    @rule(
        chosen=st.lists(devices, min_size=1, max_size=4, unique=True),
        level=st.sampled_from([ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]),
        hold=st.sampled_from([None, 100.0]),
        by=operators,
        sure=st.booleans(),
    )
    def operator_contains(
        self, chosen: list[str], level: ContainmentLevel, hold: float | None, by: Principal, sure: bool
    ) -> None:
        request = OperatorRequest(ApprovalKind.CONTAIN, tuple(chosen), by, "r", level, hold, even_protected=sure)
        self._decide(request, "contained by hand")

    @precondition(lambda self: self.held())
    @rule(by=operators, sure=st.booleans(), most=st.integers(1, 6))
    def operator_approves_pending(self, by: Principal, sure: bool, most: int) -> None:
        chosen = tuple(one.device_id for one in self.held()[:most])
        self._decide(OperatorRequest(ApprovalKind.LET_THROUGH, chosen, by, "r", even_protected=sure), "let through")

    def held(self) -> list[Device]:
        """The devices that a guard holds back, longest first."""
        held = [one for one in devices_of(self.fleet.place.fleet).values() if is_held(one)]
        return sorted(held, key=place_of_held)

    def _decide(self, request: OperatorRequest, action: str) -> None:
        now, answers = self.fleet.clock.at, []

        def decide() -> None:
            try:
                answers.append(self.fleet.run(self.fleet.guarding.decide(request)))
            except ProtectedDeviceError:
                assert PROTECTED in request.devices
                assert not request.even_protected

        self.perform(action, decide, requested=request.devices)
        mine = self.by_hand.setdefault(request.by.name, {})
        recent = {each for each, at in mine.items() if now - at < 3600.0} | set(request.devices)
        if answers:
            assert isinstance(answers[0], ApprovalRequest) is (len(recent) > BY_HAND), "wrong need for a second person"
            if not isinstance(answers[0], ApprovalRequest):
                mine.update(dict.fromkeys(request.devices, now))

    @rule(by=operators, approves=st.booleans())
    def second_operator_decides(self, by: Principal, approves: bool) -> None:
        inbox, now = self.fleet.place.services.approvals, self.fleet.clock.at
        waiting = [one for one in inbox.book.open if one.state_at(now) is ApprovalState.OPEN]
        decider = Caller(by, frozenset(ALL), Credential.TOKEN)
        if not waiting:
            return
        request = waiting[0]
        what = "contained by hand" if request.kind is ApprovalKind.CONTAIN else "let through"

        def decide() -> None:
            if not approves:
                self.fleet.run(inbox.reject(request.request_id, decider, "no"))
                return
            try:
                self.fleet.run(inbox.approve(request.request_id, decider))
            except ApprovalNotAllowedError:
                assert by == request.requester
            else:
                assert by != request.requester

        self.perform(what, decide, requested=request.devices if approves else ())

    @precondition(lambda self: self.held())
    @rule(by=operators)
    def operator_dismisses(self, by: Principal) -> None:
        chosen = [one.device_id for one in self.held()]
        self.perform("dismissed", lambda: self.fleet.run(self.fleet.guarding.dismiss(chosen, by.actor, "r")))

    @rule(device=devices)
    def operator_releases(self, device: str) -> None:
        fleet = self.fleet.place.fleet
        event = ReleaseOrdered(fleet.new_id(), "operator:ada", "r")
        self.perform(
            "released by hand", lambda: self.fleet.run(fleet.apply_and_commit(device, event)), requested=(device,)
        )

    @rule(lasting=st.sampled_from([100.0, 1000.0]))
    def operator_waives(self, lasting: float) -> None:
        new = WaiverRequest("p/telnet", "owner", "r", "operator:ada", lasting, device=WAIVED)
        waiver: list[Any] = []
        self.perform("waived", lambda: waiver.append(self.fleet.run(self.fleet.waiving.add(new))))
        self.waivers.append(waiver[0].waiver_id)
        self.waived_until = max(self.waived_until, waiver[0].expires_at)

    @precondition(lambda self: self.fleet.waiving.all())
    @rule()
    def waived_device_fails(self) -> None:
        self.report(WAIVED, (TELNET,))

    @precondition(lambda self: self.fleet.waiving.all())
    @rule()
    def operator_revokes_all_waivers(self) -> None:
        for one in self.fleet.waiving.all():
            self.waived_until = 0.0
            self.perform("revoked", lambda one=one: self.fleet.run(self.fleet.waiving.revoke(one.waiver_id, "ada")))

    # --- invariants ---------------------------------------------------------------------------------------------

    @invariant()
    def contained_device_is_proven_failing_or_in_progress(self) -> None:
        place = self.fleet.place
        for device in devices_of(place.fleet).values():
            case = device.case
            if case is None:
                continue
            is_proven, is_busy = case.proven_level is case.level, place.outbox.queue.is_busy(device.device_id)
            assert is_proven or case.trouble or is_busy, f"{device.device_id}: neither"

    @invariant()
    def proofs_and_failures_are_audited_and_failures_alert(self) -> None:
        for device in devices_of(self.fleet.place.fleet).values():
            case = device.case
            if case is None or not (case.trouble or case.proven_level is case.level):
                continue
            kind = AuditKind.CONTAINMENT_FAILED if case.trouble else AuditKind.CONTAINMENT_PROVEN
            lines = [entry for _, entry in self.fleet.audit if entry.case_id == case.case_id and entry.kind == kind]
            assert lines, f"{device.device_id}: {kind} is not on record"
            assert not case.trouble or lines[-1].alert

    @invariant()
    def broker_holds_what_was_proven(self) -> None:
        place = self.fleet.place
        for device in devices_of(place.fleet).values():
            if device.case is not None and device.case.proven_level is not ContainmentLevel.NONE:
                assert place.broker.rules_held.get(device.device_id) == restriction(device.device_id)

    @invariant()
    def unauthenticated_device_is_never_contained_at_the_broker(self) -> None:
        if any(entry.device_id == CLAIMED and entry.actor.startswith("operator") for _, entry in self.fleet.audit):
            return
        assert CLAIMED not in self.fleet.broker.rules_held
        assert CLAIMED not in self.fleet.broker.bans_held

    @invariant()
    def pending_containments_have_an_alert(self) -> None:
        fleet = self.fleet.place.fleet
        waiting = [
            one
            for one in devices_of(fleet).values()
            if one.pending is not None and one.pending.why is HoldReason.BLAST_RADIUS
        ]
        assert fleet.guards.radius.waiting == len(waiting)
        reached = [at for at, entry in self.fleet.audit if entry.kind == AuditKind.GUARD_BLAST_RADIUS_REACHED]
        for one in waiting:
            assert one.pending is not None
            assert [at for at in reached if at <= one.pending.since], "pending without an alert"

    @invariant()
    def passed_deadline_was_handled(self) -> None:
        """A passed deadline changes something, or is not due again until another event."""
        place = self.fleet.place
        self.perform("time", lambda: self.fleet.run(place.timers.tick()))
        assert self.fleet.run(place.store.due(self.fleet.clock.at, None, 10)) == []


TestUnattended = Unattended.TestCase
TestUnattended.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
