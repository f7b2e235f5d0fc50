"""Invariants of a rollout, as docs/rollouts.md lists them, under any order of events."""

import contextlib
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.domain.rollout.lifecycle import APPROVAL_TIMEOUT
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    RolloutError,
    RolloutState,
    RolloutTerms,
)
from controller.domain.rollout.window import MaintenanceWindow
from controller.service.rollout.run import RolloutRun
from tests.property.rollout_play import SECOND, SENDER, RolloutPlay, tally_of

FAILURES = ("failed", "refused", "rolled_back", "broken", "declined")
UNREADABLE = (InstalledVersion(), InstalledVersion(is_absent=True))
_picks = st.integers(min_value=0, max_value=1_000)


class Rollouts(RolloutPlay, RuleBasedStateMachine):
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
        rings = [(f"r{n}", [f"r{n}d{m}" for m in range(size)]) for n, size in enumerate(sizes)]
        terms = RolloutTerms(error_threshold=threshold, min_sample=sample, timeout=600.0, **options)
        self.start(terms, rings)

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

    @rule(pick=_picks, phase=st.sampled_from(FAILURES), has_it=st.booleans())
    def device_fails(self, pick: int, phase: str, has_it: bool) -> None:
        """With `has_it` it has the version all the same, which only a later report shows."""
        member = self.member(self.device(pick, lambda each: each.state.is_under_way))
        self.denying.add(member.device_id)
        if has_it and member.state.is_under_way:
            self.versions[member.device_id] = "2.0"
        self.run.on_command_progress(
            member.device_id, CommandProgress(member.command_id, "failed", "no good", phase), self.now
        )
        self.store()

    @rule(pick=_picks, end=st.sampled_from([("failed", "refused"), ("rejected", ""), ("expired", "")]))
    def clock_of_a_device_is_wrong(self, pick: int, end: tuple[str, str]) -> None:
        member, errors = self.member(self.device(pick)), sum(ring.errors for ring in self.run.rollout.rings)
        for command_id in (member.command_id, member.revert_command_id):
            progress = CommandProgress(command_id, end[0], "it is 1970", end[1], reason_code="clock")
            self.run.on_command_progress(member.device_id, progress, self.now)
        assert sum(ring.errors for ring in self.run.rollout.rings) <= errors, "a wrong clock is no verdict"
        self.store()

    @rule(pick=_picks, version=st.sampled_from(["1.0", "2.0"]), health=st.sampled_from(["ok", "failed", "unknown"]))
    def device_reports(self, pick: int, version: str, health: str) -> None:
        member = self.member(self.device(pick))
        self.versions[member.device_id] = version
        self.denying.discard(member.device_id)
        self.unreadable.discard(member.device_id)
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

    @rule(pick=_picks, unreadable=st.sampled_from(UNREADABLE), stays=st.booleans())
    def device_reports_nothing_about_updates(self, pick: int, unreadable: InstalledVersion, stays: bool) -> None:
        before = self.member(self.device(pick))
        self.run.on_report(before.device_id, unreadable, self.now)
        assert self.member(before.device_id) is before, "unknown is no verdict"
        (self.unreadable.add if stays else self.unreadable.discard)(before.device_id)

    @rule(pick=_picks)
    def blank_hardware_takes_the_place_of_a_device(self, pick: int) -> None:
        before = self.member(self.device(pick))
        self.versions[before.device_id] = ""
        self.unreadable.discard(before.device_id)
        self.run.on_report(before.device_id, InstalledVersion(is_known=True), self.now)
        after = self.member(before.device_id)
        if not before.was_replaced:
            assert after.state is before.state or after.state is not MemberState.FAILED, "a new device is no failure"
        self.store()

    @rule(seconds=st.sampled_from([-86_400.0, -61.0, 61.0, 86_400.0]))
    def wall_clock_leaps(self, seconds: float) -> None:
        time = self.run.rollout.time(self.now)
        self.now += seconds
        self.run.on_clock_leap(seconds)
        assert self.run.rollout.time(self.now) == time, "a leap moved deadlines or soak time"
        self.store()

    @rule()
    def target_is_withdrawn(self) -> None:
        is_active, is_paused = self.run.rollout.state.is_active, self.run.rollout.is_paused
        self.run.withdraw_target()
        if is_active and not is_paused:
            self.is_withdrawn = True
            assert not self.run.rollout.state.is_active
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

    @precondition(lambda self: self.run.rollout.state.is_active and not self.run.rollout.is_paused)
    @rule()
    def operator_pauses(self) -> None:
        self.run.pause(SENDER, self.now)
        self.store()

    @precondition(lambda self: self.run.rollout.is_paused)
    @rule()
    def operator_resumes(self) -> None:
        time = self.run.rollout.time(self.now)
        self.run.resume(SENDER, self.now)
        assert self.run.rollout.time(self.now) == time
        self.store()

    @precondition(lambda self: self.run.rollout.state is RolloutState.AWAITING_APPROVAL)
    @rule()
    def operator_approves(self) -> None:
        self.run.approve(SECOND, self.now)
        self.was_approved = True
        self.store()

    @precondition(lambda self: self.run.rollout.state.is_active)
    @rule(revert=st.booleans(), at_once=st.booleans())
    def operator_aborts(self, revert: bool, at_once: bool) -> None:
        self.run.abort(SENDER, self.now, revert=revert, reverts_now=revert and at_once)
        self.store()

    @precondition(lambda self: not self.run.rollout.state.is_active)
    @rule(at_once=st.booleans())
    def operator_asks_again(self, at_once: bool) -> None:
        try:
            self.run.abort(SENDER, self.now, revert=True, reverts_now=at_once)
        except RolloutError:
            assert not any(ring.not_reverted or ring.revert_away for ring in self.run.rollout.rings)
        self.store()

    @rule(lose=st.booleans())
    def controller_is_killed(self, lose: bool) -> None:
        """Unstored changes are lost; with `lose` a whole pass, none of whose commands was sent."""
        if lose:
            self.run_once()
        self.run = RolloutRun(self.stored, self.stored_members.values())
        self.run.on_restart()
        for device_id in self.stored_members:
            if device_id not in self.unreachable | self.isolated:
                self.run.on_reachable(device_id, self.now)
        self.store()

    @invariant()
    def a_paused_rollout_stands_still(self) -> None:
        if not hasattr(self, "run"):
            return
        rollout = self.run.rollout
        if not rollout.is_paused:
            self.paused_as = None
            return
        seen = rollout.state, rollout.ring, rollout.time(self.now)
        was_approved = self.paused_as and self.paused_as[0] is RolloutState.AWAITING_APPROVAL
        assert self.paused_as in (None, seen) or (was_approved and rollout.state is RolloutState.RUNNING)
        self.paused_as = seen

    @invariant()
    def nobody_is_forgotten_when_the_rollout_goes_back(self) -> None:
        if not hasattr(self, "run") or not self.run.rollout.is_reverting:
            return
        queued = self.run.queued_reverts
        for member in self.run.members.values():
            if self.may_keep_the_version(member):
                is_known = member.revert is not RevertState.NONE or member.state.is_under_way
                assert is_known or member.device_id in queued, f"it keeps the version: {member}"

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
            assert not any(ring.under_way for ring in self.run.rollout.rings)
        if hasattr(self, "run") and self.run.rollout.state is RolloutState.COMPLETED:
            assert not any(ring.waiting for ring in self.run.rollout.rings)

    def teardown(self) -> None:
        """A rollout ends even if devices and operators are silent from now on; who is heard then goes back."""
        if not hasattr(self, "run"):
            return
        if self.run.rollout.is_paused:
            self.run.resume(SENDER, self.now)
        self.run_once(8)
        # Chance rarely lets a device deny an update that it has in a rollout that goes back.
        self.device_fails(self.commands, FAILURES[self.commands % len(FAILURES)], has_it=True)
        self.run_to_the_end()
        with contextlib.suppress(RolloutError):  # nobody can go back
            self.run.abort(SENDER, self.now, revert=True, reverts_now=True)
            self.run_to_the_end()
        if self.run.rollout.is_reverting:
            self.everyone_is_heard()

    def run_to_the_end(self) -> None:
        for _ in range(2_000):
            if self.run.rollout.state.is_end:
                break
            self.run_once(8)
            self.store()
            self.now += APPROVAL_TIMEOUT if self.run.rollout.state is RolloutState.AWAITING_APPROVAL else 1_700.0
        assert self.run.rollout.state.is_end, f"the rollout did not end: {self.run.rollout}"
        assert not any(ring.revert_pending for ring in self.run.rollout.rings)


TestRollouts = Rollouts.TestCase
# The same examples in every run; more of them are tried by hand: raise max_examples and take derandomize away.
TestRollouts.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)
