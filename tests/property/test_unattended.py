"""Reports, operators, faults, kills and a broker that fails in any way, in any order: what no device may suffer.

More examples than the suite plays: CORDON_TEST_UNATTENDED=500 pytest tests/property/test_unattended.py
"""

import os
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.cases import POLICY
from controller.domain.device import Device, HoldReason
from controller.domain.events import ReleaseOrdered
from controller.domain.guards.approvals import ApprovalKind, ApprovalNotAllowedError, ApprovalRequest, ApprovalState
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import restriction
from controller.service.containment.operator_actions import OperatorRequest, ProtectedDeviceError
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

EXAMPLES: Final = int(os.environ.get("CORDON_TEST_UNATTENDED", "40"))
_LEVELS: Final = {
    "p/telnet": ContainmentLevel.RESTRICTED,
    "p/docker": ContainmentLevel.ISOLATED,
    "p/slow": ContainmentLevel.RESTRICTED,
}
devices = st.sampled_from(DEVICES)
some_ports = st.lists(st.sampled_from([TELNET, DOCKER, SLOW, SHADOW]), max_size=2, unique=True).map(tuple)
fates = st.lists(st.sampled_from(["well", "refuse", "lose", "doubt"]), max_size=4)
operators = st.sampled_from(["operator:ada", "operator:bob"])


class Unattended(RuleBasedStateMachine):
    """Keeps a second account of what was said, and holds every change of a device against it."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.ports: dict[str, tuple[int, ...]] = dict.fromkeys(DEVICES, ())
        self.word_at: dict[str, float] = dict.fromkeys(DEVICES, self.fleet.clock.at)
        self.automatic: dict[str, float] = {}  # device and when policy contained it, as the last case stands
        self.waived_until = 0.0
        self.waivers: list[str] = []
        self.by_hand: dict[str, dict[str, float]] = {}
        self.waited = False  # something waited because of the blast radius before what happens now

    def teardown(self) -> None:
        self.fleet.close()

    # --- what happens -------------------------------------------------------------------------------------------

    def happens(self, what: str, act: Any, *, said: str = "", asked: tuple[str, ...] = ()) -> None:
        """Do it, then hold each device's change against it. `said`: whose report or heartbeat it was, `asked`: whom
        an operator named.
        """
        before = dict(self.fleet.place.keeper.devices)
        self.waited = any(
            one.pending is not None and one.pending.why is HoldReason.BLAST_RADIUS for one in before.values()
        )
        act()
        for device_id, after in self.fleet.place.keeper.devices.items():
            self._check(what, before[device_id], after, fresh=device_id == said, named=device_id in asked)

    def _check(self, what: str, before: Device, after: Device, *, fresh: bool, named: bool) -> None:
        new_case = after.case is not None and (before.case is None or before.case.case_id != after.case.case_id)
        if after.level.rank > before.level.rank or new_case:
            self._was_contained(what, before, after, named=named)
        if before.level is not ContainmentLevel.NONE and after.level is ContainmentLevel.NONE:
            self._was_released(what, before, after, fresh=fresh, named=named)
        if before.level is ContainmentLevel.ISOLATED and after.level is ContainmentLevel.RESTRICTED:
            assert named or what in ("time", "carried out"), f"{what}: stepped down"

    def _was_contained(self, what: str, before: Device, after: Device, *, named: bool) -> None:
        case, now = after.case, self.fleet.clock.at
        assert case is not None
        if what == "contained by hand":
            assert named, "another device than the operator named was contained"
            return
        device_id = after.device_id
        assert case.by == POLICY, f"{what}: contained without an operator or a policy"
        open_rules = {OPENS[port] for port in self.ports[device_id]} & _LEVELS.keys()
        if device_id == WAIVED and now < self.waived_until:
            open_rules.discard("p/telnet")
        reasons = {key for key in open_rules if _LEVELS[key].rank >= after.level.rank}
        assert reasons, f"{what}: {device_id} was contained without a cause"
        assert now - self.word_at[device_id] <= FRESH, f"{what}: {device_id} was contained on stale facts"
        if what == "let through":
            assert named, "another device than the operator approved was contained"
            return
        assert device_id != PROTECTED, f"{what}: a protected device was contained"
        assert what == "time" or not self.waited, f"{what}: {device_id} was contained while others wait"
        self.automatic.setdefault(device_id, now)
        if now - self.automatic[device_id] >= WINDOW:
            self.automatic[device_id] = now
        lately = [one for one, at in self.automatic.items() if now - at < WINDOW]
        assert len(lately) <= LIMIT, f"{what}: {lately} within the window, {LIMIT} are allowed"

    def _was_released(self, what: str, before: Device, after: Device, *, fresh: bool, named: bool) -> None:
        assert before.case is not None
        if what == "carried out":
            # The broker would not vouch for who reported: it was never really contained.
            assert before.case.by == POLICY
            assert before.case.proven_level is ContainmentLevel.NONE
            self.automatic.pop(after.device_id, None)
            return
        assert before.level is ContainmentLevel.RESTRICTED, f"{what}: an isolation went straight to none"
        if what == "released by hand":
            assert named
            return
        assert fresh, f"{what}: released without a word of the device"
        failing = {OPENS[port] for port in self.ports[after.device_id]}
        if after.device_id == WAIVED and self.fleet.clock.at < self.waived_until:
            failing.discard("p/telnet")
        assert not failing & set(before.case.causes), "released while a cause is open"
        assert self.fleet.clock.at >= before.case.hold_until, "released while an operator holds it"

    @rule(device=devices, ports=some_ports)
    def report(self, device: str, ports: tuple[int, ...]) -> None:
        self.ports[device], self.word_at[device] = ports, self.fleet.clock.at
        self.happens("report", lambda: self.fleet.report(device, *ports), said=device)

    @precondition(lambda self: not self.fleet.place.outbox.queue.pending)
    @rule(device=devices, ports=some_ports)
    def an_impostor_reports_and_the_device_returns(self, device: str, ports: tuple[int, ...]) -> None:
        """At a broker that lets clients in without proof; whatever it said, nothing happens to the device for it."""
        broker, case = self.fleet.broker, self.fleet.place.keeper.devices[device].case
        before = broker.rules_held.get(device), broker.bans_held.get(device)
        self.report(device, ports)
        self.fleet.return_to(device)
        self.decisions_are_carried_out()
        if case is None:
            assert (broker.rules_held.get(device), broker.bans_held.get(device)) == before, "contained on a claim"

    @rule(ports=st.sampled_from([(TELNET,), (DOCKER,), ()]))
    def the_whole_fleet_reports(self, ports: tuple[int, ...]) -> None:
        for device in DEVICES:
            self.report(device, ports)

    @rule(device=devices)
    def heartbeat(self, device: str) -> None:
        self.word_at[device] = self.fleet.clock.at
        self.happens("heartbeat", lambda: self.fleet.beat(device), said=device)

    @rule(seconds=st.sampled_from([1.0, 61.0, 121.0, 301.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.happens("time", lambda: self.fleet.pass_time(seconds))

    @rule(fate=fates)
    def the_broker_will(self, fate: list[str]) -> None:
        self.fleet.broker.fate = list(fate)

    @rule()
    def decisions_are_carried_out(self) -> None:
        self.happens("carried out", self.fleet.carry_out)

    @rule()
    def killed(self) -> None:
        self.happens("killed", self.fleet.restart)

    @rule(device=devices, ports=some_ports)
    def killed_before_the_commit(self, device: str, ports: tuple[int, ...]) -> None:
        self.happens("killed", lambda: self.fleet.die_deciding(device, *ports))

    @rule(
        chosen=st.lists(devices, min_size=1, max_size=4, unique=True),
        level=st.sampled_from([ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]),
        hold=st.sampled_from([None, 100.0]),
        by=operators,
        sure=st.booleans(),
    )
    def operator_contains(
        self, chosen: list[str], level: ContainmentLevel, hold: float | None, by: str, sure: bool
    ) -> None:
        wanted = OperatorRequest(ApprovalKind.CONTAIN, tuple(chosen), by, "r", level, hold, even_protected=sure)
        self._decide(wanted, "contained by hand")

    @precondition(lambda self: self.fleet.guarding.held_devices())
    @rule(by=operators, sure=st.booleans(), most=st.integers(1, 6))
    def operator_lets_through(self, by: str, sure: bool, most: int) -> None:
        chosen = tuple(one.device_id for one in self.fleet.guarding.held_devices()[:most])
        self._decide(OperatorRequest(ApprovalKind.LET_THROUGH, chosen, by, "r", even_protected=sure), "let through")

    def _decide(self, wanted: OperatorRequest, what: str) -> None:
        now, answers = self.fleet.clock.at, []

        def decide() -> None:
            try:
                answers.append(self.fleet.run(self.fleet.guarding.decide(wanted)))
            except ProtectedDeviceError:
                assert PROTECTED in wanted.devices
                assert not wanted.even_protected

        self.happens(what, decide, asked=wanted.devices)
        mine = self.by_hand.setdefault(wanted.by, {})
        lately = {one for one, at in mine.items() if now - at < 3600.0} | set(wanted.devices)
        if answers:
            assert isinstance(answers[0], ApprovalRequest) is (len(lately) > BY_HAND), "one person too few, or too many"
            if not isinstance(answers[0], ApprovalRequest):
                mine.update(dict.fromkeys(wanted.devices, now))

    @rule(by=operators, yes=st.booleans())
    def second_person_decides(self, by: str, yes: bool) -> None:
        guarding, now = self.fleet.guarding, self.fleet.clock.at
        waiting = [one for one in guarding.requests.values() if one.state_at(now) is ApprovalState.OPEN]
        if not waiting:
            return
        request = waiting[0]
        what = "contained by hand" if request.kind is ApprovalKind.CONTAIN else "let through"

        def decide() -> None:
            if not yes:
                self.fleet.run(guarding.reject(request.request_id, by, "no"))
                return
            try:
                self.fleet.run(guarding.approve(request.request_id, by))
            except ApprovalNotAllowedError:
                assert by == request.by
            else:
                assert by != request.by

        self.happens(what, decide, asked=request.devices if yes else ())

    @precondition(lambda self: self.fleet.guarding.held_devices())
    @rule(by=operators)
    def operator_dismisses(self, by: str) -> None:
        chosen = [one.device_id for one in self.fleet.guarding.held_devices()]
        self.happens("dismissed", lambda: self.fleet.run(self.fleet.guarding.dismiss(chosen, by, "r")))

    @rule(device=devices)
    def operator_releases(self, device: str) -> None:
        keeper = self.fleet.place.keeper
        event = ReleaseOrdered(keeper.new_id(), "operator:ada", "r")
        self.happens("released by hand", lambda: self.fleet.run(keeper.handle(device, event)), asked=(device,))

    @rule(lasting=st.sampled_from([100.0, 1000.0]))
    def waive(self, lasting: float) -> None:
        new = WaiverRequest("p/telnet", "owner", "r", "operator:ada", lasting, device=WAIVED)
        waiver: list[Any] = []
        self.happens("waived", lambda: waiver.append(self.fleet.run(self.fleet.waiving.add(new))))
        self.waivers.append(waiver[0].waiver_id)
        self.waived_until = max(self.waived_until, waiver[0].expires_at)

    @precondition(lambda self: self.fleet.waiving.all())
    @rule()
    def the_waived_device_fails(self) -> None:
        self.report(WAIVED, (TELNET,))

    @precondition(lambda self: self.fleet.waiving.all())
    @rule()
    def revoke_all(self) -> None:
        for one in self.fleet.waiving.all():
            self.waived_until = 0.0
            self.happens("revoked", lambda one=one: self.fleet.run(self.fleet.waiving.revoke(one.waiver_id, "ada")))

    # --- what holds at any time ---------------------------------------------------------------------------------

    @invariant()
    def whoever_is_contained_has_a_receipt_or_an_open_alert(self) -> None:
        place = self.fleet.place
        for device in place.keeper.devices.values():
            case = device.case
            if case is None:
                continue
            is_proven, is_busy = case.proven_level is case.level, place.outbox.queue.is_busy(device.device_id)
            assert is_proven or case.trouble or is_busy, f"{device.device_id}: neither"

    @invariant()
    def what_is_proven_is_on_record_and_trouble_is_an_alert(self) -> None:
        for device in self.fleet.place.keeper.devices.values():
            case = device.case
            if case is None or not (case.trouble or case.proven_level is case.level):
                continue
            kind = AuditKind.CONTAINMENT_FAILED if case.trouble else AuditKind.CONTAINMENT_PROVEN
            lines = [entry for _, entry in self.fleet.heard if entry.case_id == case.case_id and entry.kind == kind]
            assert lines, f"{device.device_id}: {kind} is not on record"
            assert not case.trouble or lines[-1].alert

    @invariant()
    def what_was_proven_is_held_by_the_broker(self) -> None:
        place = self.fleet.place
        for device in place.keeper.devices.values():
            if device.case is not None and device.case.proven_level is not ContainmentLevel.NONE:
                assert place.broker.rules_held.get(device.device_id) == restriction(device.device_id)

    @invariant()
    def nothing_that_is_merely_claimed_contains_at_the_broker(self) -> None:
        if any(entry.device_id == CLAIMED and entry.actor.startswith("operator") for _, entry in self.fleet.heard):
            return
        assert CLAIMED not in self.fleet.broker.rules_held
        assert CLAIMED not in self.fleet.broker.bans_held

    @invariant()
    def of_what_waits_there_is_one_alert_that_is_open(self) -> None:
        keeper = self.fleet.place.keeper
        waiting = [
            one
            for one in keeper.devices.values()
            if one.pending is not None and one.pending.why is HoldReason.BLAST_RADIUS
        ]
        assert keeper.guards.radius.waiting == len(waiting)
        reached = [at for at, entry in self.fleet.heard if entry.kind == AuditKind.GUARD_BLAST_RADIUS_REACHED]
        for one in waiting:
            assert one.pending is not None
            assert [at for at in reached if at <= one.pending.since], "it waits, and nobody was told"

    @invariant()
    def a_deadline_that_has_come_was_dealt_with(self) -> None:
        """What is due leads on, or is not asked for again until something else happens."""
        place = self.fleet.place
        self.happens("time", lambda: self.fleet.run(place.timers.tick()))
        assert place.keeper.due_devices(self.fleet.clock.at, 10) == []


TestUnattended = Unattended.TestCase
TestUnattended.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
