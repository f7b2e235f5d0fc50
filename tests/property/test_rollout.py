"""Invariants of a rollout: no command beyond the open ring or the error threshold, and every rollout ends."""

from dataclasses import replace
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.domain.rollout.lifecycle import APPROVAL_TIMEOUT, begin, requires_zero_errors, stop_reason
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    RingTally,
    Rollout,
    RolloutDevice,
    RolloutMember,
    RolloutState,
    RolloutTarget,
    RolloutTerms,
    tally_fields,
)
from controller.domain.rollout.window import MaintenanceWindow
from controller.service.rollout.run import RolloutRun
from tests.support.persons import person

START = 1_800_000_000.0
TARGET = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "0" * 64, 10, ("*",))
SENDER, SECOND = "operator:first", person("second")
_picks = st.integers(min_value=0, max_value=1_000)


def tally_of(name: str, ring: int, members: list[RolloutMember]) -> RingTally:
    """Counts the tally of a ring from its devices."""
    counts: dict[str, int] = {}
    for member in members:
        if member.ring == ring:
            for name_of_count in tally_fields(member):
                counts[name_of_count] = counts.get(name_of_count, 0) + 1
    return RingTally(name, **counts)


class Rollouts(RuleBasedStateMachine):
    """One rollout with its controller, devices, operators and crashes."""

    @initialize(
        sizes=st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=3),
        sample=st.integers(min_value=1, max_value=4),
        threshold=st.sampled_from([0.0, 0.25, 0.5]),
        options=st.fixed_dictionaries(
            {
                "approval": st.booleans(),
                "rollback_on_error": st.booleans(),
                "per_minute": st.sampled_from([0.0, 6.0, 600.0]),
                "window": st.sampled_from([None, MaintenanceWindow(120, 300)]),
                "soak": st.sampled_from([0.0, 60.0]),
            }
        ),
    )
    def begin(self, sizes: list[int], sample: int, threshold: float, options: dict[str, Any]) -> None:
        self.now = START
        self.commands = 0
        self.was_approved = False
        self.unreachable: set[str] = set()
        self.isolated: set[str] = set()
        self.versions: dict[str, str] = {}
        rings = [(f"r{n}", [f"r{n}d{m}" for m in range(size)]) for n, size in enumerate(sizes)]
        terms = RolloutTerms(error_threshold=threshold, min_sample=sample, timeout=600.0, **options)
        rollout, members = begin("r-0001", TARGET, terms, rings, by=SENDER, reason="", now=START)
        self.stored: Rollout = rollout
        self.stored_members = {member.device_id: member for member in members}
        self.run = RolloutRun(rollout, members)

    def store(self) -> None:
        """Stores all changes, as one transaction."""
        changes = self.run.take_changes()
        self.stored = changes.rollout
        self.stored_members |= changes.members

    def device(self, pick: int) -> str:
        names = sorted(self.stored_members)
        return names[pick % len(names)]

    def member(self, device_id: str) -> RolloutMember:
        return self.run.members[device_id]

    def view(self, device_id: str) -> RolloutDevice:
        return RolloutDevice(
            device_id, "", device_id not in self.unreachable, device_id in self.isolated, False, "Europe/Berlin"
        )

    def installed(self, device_id: str, **changes: Any) -> InstalledVersion:
        return replace(
            InstalledVersion(is_known=True, version=self.versions.get(device_id, "1.0"), health="ok"), **changes
        )

    def run_once(self, limit: int = 3) -> int:
        """One pass of the service; returns how many install commands were issued."""
        run = self.run
        run.tick(self.now)
        count = 0
        for device_id in run.candidates(self.now, limit):
            reason_before, ring = stop_reason(run.rollout), run.rollout.ring
            if not run.schedule(self.view(device_id), self.installed(device_id), self.now):
                continue
            self.answer_command(device_id)
            count += 1
            assert not reason_before, "a command after the error threshold was exceeded"
            assert self.member(device_id).ring == ring, "a command beyond the open ring"
            assert not run.rollout.is_paused
            assert device_id not in self.unreachable | self.isolated
            self.check_rings_before(ring)
        for device_id in run.pending_reverts(limit):
            assert run.rollout.is_reverting
            run.revert(device_id, self.now)
            self.answer_command(device_id)
        run.tick(self.now)
        return count

    def answer_command(self, device_id: str) -> None:
        """Issues the command that the rollout asked for; every tenth is refused."""
        self.commands += 1
        if self.commands % 10:
            self.run.on_command_issued(device_id, f"c{self.commands}", self.now)
        else:
            self.run.on_command_refused(device_id, "refused", self.now)

    def check_rings_before(self, ring: int) -> None:
        """The rings before an open ring are finished without errors, and the last ring was approved."""
        rollout = self.run.rollout
        for number, tally in enumerate(rollout.rings[:ring]):
            assert not tally.waiting
            assert not requires_zero_errors(rollout, number) or not tally.errors
        if rollout.terms.approval and ring == len(rollout.rings) - 1:
            assert self.was_approved
            assert rollout.approved_by == SECOND.actor

    @rule(limit=st.integers(min_value=1, max_value=8))
    def service_runs(self, limit: int) -> None:
        self.run_once(limit)
        self.store()

    @rule(seconds=st.sampled_from([0.5, 61.0, 700.0, 30_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(pick=_picks, phase=st.sampled_from(["", "downloading", "staged"]))
    def device_begins(self, pick: int, phase: str) -> None:
        member = self.member(self.device(pick))
        self.run.on_command_progress(
            member.device_id, CommandProgress(member.command_id, "executing", "", phase, 10), self.now
        )
        self.store()

    @rule(pick=_picks, phase=st.sampled_from(["", "confirmed"]))
    def device_claims_success(self, pick: int, phase: str) -> None:
        member = self.member(self.device(pick))
        self.run.on_command_progress(
            member.device_id, CommandProgress(member.command_id, "succeeded", "", phase), self.now
        )
        self.store()

    @rule(pick=_picks, phase=st.sampled_from(["failed", "refused", "rolled_back", "broken", "declined"]))
    def device_fails(self, pick: int, phase: str) -> None:
        member = self.member(self.device(pick))
        self.run.on_command_progress(
            member.device_id, CommandProgress(member.command_id, "failed", "no good", phase), self.now
        )
        self.store()

    @rule(pick=_picks, version=st.sampled_from(["1.0", "2.0"]), health=st.sampled_from(["ok", "failed", "unknown"]))
    def device_reports(self, pick: int, version: str, health: str) -> None:
        member = self.member(self.device(pick))
        self.versions[member.device_id] = version
        outcome = "confirmed" if version == "2.0" else "rolled_back"
        found = self.installed(
            member.device_id, version=version, health=health, outcome=outcome, command_id=member.command_id
        )
        before = member.state
        self.run.on_report(member.device_id, found, self.now)
        after = self.member(member.device_id)
        if after.state is MemberState.CONFIRMED and before is not MemberState.CONFIRMED:
            assert (version, health) == ("2.0", "ok"), "confirmed without a healthy report"
        self.store()

    @rule(pick=_picks, end=st.sampled_from(["succeeded", "failed", "expired"]))
    def device_answers_the_revert(self, pick: int, end: str) -> None:
        member = self.member(self.device(pick))
        if member.revert_command_id:
            self.run.on_command_progress(member.device_id, CommandProgress(member.revert_command_id, end), self.now)
            self.store()

    @rule(pick=_picks, isolated=st.booleans())
    def device_becomes_unavailable(self, pick: int, isolated: bool) -> None:
        device_id = self.device(pick)
        (self.isolated if isolated else self.unreachable).add(device_id)
        if not isolated:
            self.run.on_stale(device_id, self.now)
        self.store()

    @rule(pick=_picks)
    def device_becomes_reachable(self, pick: int) -> None:
        device_id = self.device(pick)
        self.unreachable.discard(device_id)
        self.isolated.discard(device_id)
        self.run.on_reachable(device_id, self.now)
        self.store()

    @precondition(lambda self: self.run.rollout.state.is_active)
    @rule()
    def operator_pauses(self) -> None:
        self.run.pause(SENDER)
        self.store()

    @precondition(lambda self: self.run.rollout.is_paused)
    @rule()
    def operator_resumes(self) -> None:
        self.run.resume(SENDER)
        self.store()

    @precondition(lambda self: self.run.rollout.state is RolloutState.AWAITING_APPROVAL)
    @rule()
    def operator_approves(self) -> None:
        self.run.approve(SECOND, self.now)
        self.was_approved = True
        self.store()

    @precondition(lambda self: self.run.rollout.state.is_active)
    @rule(revert=st.booleans())
    def operator_aborts(self, revert: bool) -> None:
        self.run.abort(SENDER, self.now, revert=revert)
        self.store()

    @precondition(lambda self: not self.run.rollout.state.is_active and not self.run.rollout.is_reverting)
    @rule()
    def operator_reverts_an_ended_rollout(self) -> None:
        self.run.abort(SENDER, self.now, revert=True)
        self.store()

    @rule(lose=st.booleans())
    def controller_is_killed(self, lose: bool) -> None:
        """Unstored changes are lost; with `lose` a whole pass, none of whose commands was sent."""
        if lose:
            self.run_once()
        self.run = RolloutRun(self.stored, self.stored_members.values())

    @invariant()
    def tallies_match_the_devices(self) -> None:
        if not hasattr(self, "run"):
            return
        members = list(self.run.members.values())
        for number, ring in enumerate(self.run.rollout.rings):
            assert ring == tally_of(ring.name, number, members)
            assert ring.total == sum(member.ring == number for member in members)

    @invariant()
    def concurrent_updates_stay_within_the_sample(self) -> None:
        if not hasattr(self, "run"):
            return
        rollout = self.run.rollout
        under_way = sum(ring.under_way for ring in rollout.rings)
        assert under_way <= max(rollout.terms.min_sample, *(ring.total for ring in rollout.rings))
        for number in range(rollout.ring + 1, len(rollout.rings)):
            assert rollout.rings[number].pending == rollout.rings[number].total, (
                "a ring was updated before it was opened"
            )

    @invariant()
    def an_ended_rollout_has_no_open_update(self) -> None:
        if hasattr(self, "run") and self.run.rollout.state.is_end:
            assert not any(ring.under_way or ring.reverting for ring in self.run.rollout.rings)
        if hasattr(self, "run") and self.run.rollout.state is RolloutState.COMPLETED:
            assert not any(ring.waiting for ring in self.run.rollout.rings)

    def teardown(self) -> None:
        """A rollout ends even if devices and operators are silent from now on."""
        if not hasattr(self, "run"):
            return
        if self.run.rollout.is_paused:
            self.run.resume(SENDER)
        for _ in range(400):
            if self.run.rollout.state.is_end:
                break
            self.run_once(8)
            self.store()
            self.now += APPROVAL_TIMEOUT if self.run.rollout.state is RolloutState.AWAITING_APPROVAL else 700.0
        assert self.run.rollout.state.is_end, f"the rollout did not end: {self.run.rollout}"
        assert not any(member.revert is RevertState.REVERTING for member in self.run.members.values())


TestRollouts = Rollouts.TestCase
TestRollouts.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
