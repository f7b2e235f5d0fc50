"""A rollout under whatever happens: never beyond its ring, never past its threshold, always an end."""

from dataclasses import replace
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.domain.rollout.lifecycle import APPROVAL_PATIENCE, begin, broken_ring, is_strict
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
    places,
)
from controller.domain.rollout.window import MaintenanceWindow
from controller.service.rollout.run import RolloutRun

START = 1_800_000_000.0
TARGET = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "0" * 64, 10, ("*",))
SENDER, SECOND = "operator:first", "operator:second"
_FIELDS = [name for name in RingTally.__dataclass_fields__ if name != "name"]
_picks = st.integers(min_value=0, max_value=1_000)


def tally_of(name: str, ring: int, members: list[RolloutMember]) -> RingTally:
    """The tally counted anew, device by device."""
    counts: dict[str, int] = {}
    for member in members:
        if member.ring == ring:
            for place in places(member):
                counts[place] = counts.get(place, 0) + 1
    return RingTally(name, **counts)


class Rollouts(RuleBasedStateMachine):
    """Plays controller, devices, operators and crashes at one rollout."""

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
        self.orders = 0
        self.was_approved = False
        self.is_away: set[str] = set()
        self.is_isolated: set[str] = set()
        self.has: dict[str, str] = {}
        rings = [(f"r{n}", [f"r{n}d{m}" for m in range(size)]) for n, size in enumerate(sizes)]
        terms = RolloutTerms(error_threshold=threshold, min_sample=sample, timeout=600.0, **options)
        rollout, members = begin("r-0001", TARGET, terms, rings, by=SENDER, reason="", now=START)
        self.kept: Rollout = rollout
        self.kept_members = {member.device_id: member for member in members}
        self.run = RolloutRun(rollout, members)

    def keep(self) -> None:
        """What the store does: everything that changed, at once."""
        changes = self.run.drain()
        self.kept = changes.rollout
        self.kept_members |= changes.members

    def device(self, pick: int) -> str:
        names = sorted(self.kept_members)
        return names[pick % len(names)]

    def one(self, device_id: str) -> RolloutMember:
        return self.run.members[device_id]

    def view(self, device_id: str) -> RolloutDevice:
        return RolloutDevice(
            device_id, "", device_id not in self.is_away, device_id in self.is_isolated, False, "Europe/Berlin"
        )

    def found(self, device_id: str, **changes: Any) -> InstalledVersion:
        return replace(InstalledVersion(is_known=True, version=self.has.get(device_id, "1.0"), health="ok"), **changes)

    def go_on(self, most: int = 3) -> int:
        """One pass of the service; how many were ordered."""
        run = self.run
        run.tick(self.now)
        count = 0
        for device_id in run.candidates(self.now, most):
            trouble_before, ring = broken_ring(run.rollout), run.rollout.ring
            self.orders += 1
            member = run.turn(self.view(device_id), self.found(device_id), self.now, f"o{self.orders}")
            if member is None:
                continue
            count += 1
            assert not trouble_before, "an order after the threshold was passed"
            assert member.ring == ring, "an order beyond the ring"
            assert not run.rollout.is_paused
            assert device_id not in self.is_away | self.is_isolated
            self.check_rings_before(ring)
        for device_id in run.returns(most):
            assert run.rollout.is_reverting
            self.orders += 1
            run.sent_back(device_id, self.now, f"o{self.orders}")
        run.tick(self.now)
        return count

    def check_rings_before(self, ring: int) -> None:
        """Whatever ring is ordered: those before it are over and good, the last one approved."""
        rollout = self.run.rollout
        for number, tally in enumerate(rollout.rings[:ring]):
            assert not tally.waiting
            assert not is_strict(rollout, number) or not tally.errors
        if rollout.terms.approval and ring == len(rollout.rings) - 1:
            assert self.was_approved
            assert rollout.approved_by == SECOND

    @rule(most=st.integers(min_value=1, max_value=8))
    def pass_of_the_service(self, most: int) -> None:
        self.go_on(most)
        self.keep()

    @rule(seconds=st.sampled_from([0.5, 61.0, 700.0, 30_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(pick=_picks, phase=st.sampled_from(["", "downloading", "staged"]))
    def device_begins(self, pick: int, phase: str) -> None:
        member = self.one(self.device(pick))
        self.run.told(member.device_id, CommandProgress(member.command_id, "executing", "", phase, 10), self.now)
        self.keep()

    @rule(pick=_picks, words=st.sampled_from(["", "confirmed"]))
    def device_says_it_is_done(self, pick: int, words: str) -> None:
        member = self.one(self.device(pick))
        self.run.told(member.device_id, CommandProgress(member.command_id, "succeeded", "", words), self.now)
        self.keep()

    @rule(pick=_picks, phase=st.sampled_from(["failed", "refused", "rolled_back", "broken", "declined"]))
    def device_fails(self, pick: int, phase: str) -> None:
        member = self.one(self.device(pick))
        self.run.told(member.device_id, CommandProgress(member.command_id, "failed", "no good", phase), self.now)
        self.keep()

    @rule(pick=_picks, version=st.sampled_from(["1.0", "2.0"]), health=st.sampled_from(["ok", "failed", "unknown"]))
    def device_reports(self, pick: int, version: str, health: str) -> None:
        member = self.one(self.device(pick))
        self.has[member.device_id] = version
        outcome = "confirmed" if version == "2.0" else "rolled_back"
        found = self.found(
            member.device_id, version=version, health=health, outcome=outcome, command_id=member.command_id
        )
        before = member.state
        self.run.looked(member.device_id, found, self.now)
        after = self.one(member.device_id)
        if after.state is MemberState.CONFIRMED and before is not MemberState.CONFIRMED:
            assert (version, health) == ("2.0", "ok"), "confirmed by less than a healthy report"
        self.keep()

    @rule(pick=_picks, end=st.sampled_from(["succeeded", "failed", "expired"]))
    def device_tells_of_its_return(self, pick: int, end: str) -> None:
        member = self.one(self.device(pick))
        if member.back_command_id:
            self.run.told(member.device_id, CommandProgress(member.back_command_id, end), self.now)
            self.keep()

    @rule(pick=_picks, isolated=st.booleans())
    def device_goes(self, pick: int, isolated: bool) -> None:
        device_id = self.device(pick)
        (self.is_isolated if isolated else self.is_away).add(device_id)
        if not isolated:
            self.run.fell_silent(device_id, self.now)
        self.keep()

    @rule(pick=_picks)
    def device_comes_back(self, pick: int) -> None:
        device_id = self.device(pick)
        self.is_away.discard(device_id)
        self.is_isolated.discard(device_id)
        self.run.came_back(device_id, self.now)
        self.keep()

    @precondition(lambda self: self.run.rollout.state.goes_on)
    @rule()
    def operator_pauses(self) -> None:
        self.run.pause(SENDER)
        self.keep()

    @precondition(lambda self: self.run.rollout.is_paused)
    @rule()
    def operator_resumes(self) -> None:
        self.run.resume(SENDER)
        self.keep()

    @precondition(lambda self: self.run.rollout.state is RolloutState.AWAITING_APPROVAL)
    @rule()
    def operator_approves(self) -> None:
        self.run.approve(SECOND, self.now)
        self.was_approved = True
        self.keep()

    @precondition(lambda self: self.run.rollout.state.goes_on)
    @rule(revert=st.booleans())
    def operator_aborts(self, revert: bool) -> None:
        self.run.abort(SENDER, self.now, revert=revert)
        self.keep()

    @precondition(lambda self: not self.run.rollout.state.goes_on and not self.run.rollout.is_reverting)
    @rule()
    def operator_rolls_back_afterwards(self) -> None:
        self.run.abort(SENDER, self.now, revert=True)
        self.keep()

    @rule(lose=st.booleans())
    def controller_is_killed(self, lose: bool) -> None:
        """What was not kept is gone; with `lose` that is a whole pass: none of its orders went out."""
        if lose:
            self.go_on()
        self.run = RolloutRun(self.kept, self.kept_members.values())

    @invariant()
    def tallies_are_right(self) -> None:
        if not hasattr(self, "run"):
            return
        members = list(self.run.members.values())
        for number, ring in enumerate(self.run.rollout.rings):
            assert ring == tally_of(ring.name, number, members)
            assert ring.total == sum(member.ring == number for member in members)

    @invariant()
    def no_more_under_way_than_the_sample_allows(self) -> None:
        if not hasattr(self, "run"):
            return
        rollout = self.run.rollout
        under_way = sum(ring.under_way for ring in rollout.rings)
        assert under_way <= max(rollout.terms.min_sample, *(ring.total for ring in rollout.rings))
        for number in range(rollout.ring + 1, len(rollout.rings)):
            assert rollout.rings[number].pending == rollout.rings[number].total, "a ring that is not open was touched"

    @invariant()
    def an_end_is_an_end(self) -> None:
        if hasattr(self, "run") and self.run.rollout.state.is_end:
            assert not any(ring.under_way or ring.reverting for ring in self.run.rollout.rings)
        if hasattr(self, "run") and self.run.rollout.state is RolloutState.COMPLETED:
            assert not any(ring.waiting for ring in self.run.rollout.rings)

    def teardown(self) -> None:
        """Left alone from here on, with devices that say nothing more, it ends."""
        if not hasattr(self, "run"):
            return
        if self.run.rollout.is_paused:
            self.run.resume(SENDER)
        for _ in range(400):
            if self.run.rollout.state.is_end:
                break
            self.go_on(8)
            self.keep()
            # Devices without a word, an operator without an answer.
            self.now += APPROVAL_PATIENCE if self.run.rollout.state is RolloutState.AWAITING_APPROVAL else 700.0
        assert self.run.rollout.state.is_end, f"no end: {self.run.rollout}"
        assert not any(member.back is RevertState.REVERTING for member in self.run.members.values())


TestRollouts = Rollouts.TestCase
TestRollouts.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)
