"""One rollout with its controller, devices, operators and crashes, for the property tests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from controller.domain.rollout.lifecycle import begin, requires_zero_errors, stop_reason
from controller.domain.rollout.member import GRACE
from controller.domain.rollout.model import (
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
from controller.domain.rollout.window import MaintenanceWindow, closes_at, opens_at
from controller.service.rollout.run import RolloutRun
from tests.support.persons import person

START = 1_800_000_000.0
TARGET = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "0" * 64, 10, ("*",))
SENDER, SECOND = "operator:first", person("second")
ZONE = "Europe/Berlin"
WAITING = (MemberState.PENDING, MemberState.AWAY)


def tally_of(name: str, ring: int, members: list[RolloutMember]) -> RingTally:
    """Counts the tally of a ring from its devices."""
    counts: dict[str, int] = {}
    for member in members:
        if member.ring == ring:
            for name_of_count in tally_fields(member):
                counts[name_of_count] = counts.get(name_of_count, 0) + 1
    return RingTally(name, **counts)


class RolloutPlay:
    """The state of a play; commands that break an invariant fail the test."""

    def start(self, terms: RolloutTerms, rings: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Begins the rollout."""
        self.now = START
        self.commands = 0
        self.was_approved = False
        self.unreachable: set[str] = set()
        self.isolated: set[str] = set()
        self.versions: dict[str, str] = {}
        self.denying: set[str] = set()  # devices whose last word is that they do not have the update
        self.unreadable: set[str] = set()
        self.is_withdrawn = False
        self.paused_as: tuple[RolloutState, int, float] | None = None
        rollout, members = begin("r-0001", TARGET, terms, rings, by=SENDER, reason="", now=START)
        self.stored: Rollout = rollout
        self.stored_members = {member.device_id: member for member in members}
        self.run = RolloutRun(rollout, members)

    def store(self) -> None:
        changes = self.run.take_changes()
        self.stored = changes.rollout
        self.stored_members |= changes.members

    def device(self, pick: int, among: Callable[[RolloutMember], bool] = lambda _: True) -> str:
        """One of the devices for which `among` is true, or of all if it is for none."""
        names = sorted(self.stored_members)
        chosen = [name for name in names if among(self.member(name))] or names
        return chosen[pick % len(chosen)]

    def member(self, device_id: str) -> RolloutMember:
        return self.run.members[device_id]

    def view(self, device_id: str) -> RolloutDevice:
        return RolloutDevice(device_id, "", device_id not in self.unreachable, device_id in self.isolated, False, ZONE)

    def installed(self, device_id: str, **changes: Any) -> InstalledVersion:
        if device_id in self.unreadable:
            return InstalledVersion()
        known = InstalledVersion(is_known=True, version=self.versions.get(device_id, "1.0"), health="ok")
        return replace(known, **changes)

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
            assert self.member(device_id).ring <= ring, "a command beyond the open ring"
            assert not run.rollout.is_paused
            assert not self.is_withdrawn, "a command for a withdrawn target"
            assert device_id not in self.unreachable | self.isolated | self.unreadable
            self.check_window(device_id, run.rollout.terms.window)
            self.check_rings_before(ring)
        for device_id in run.pending_reverts(limit):
            assert run.rollout.is_reverting
            if run.revert(self.view(device_id), self.now):
                assert device_id not in self.unreachable | self.isolated
                self.check_window(device_id, None if run.rollout.reverts_now else run.rollout.terms.window)
                self.answer_command(device_id)
        run.tick(self.now)
        return count

    def check_window(self, device_id: str, window: MaintenanceWindow | None) -> None:
        """The window is open, and the order ends with it."""
        assert opens_at(window, ZONE, self.now) == self.now, "a command in a closed window"
        deadline = self.member(device_id).deadline
        left = closes_at(window, ZONE, self.now) - self.now
        assert deadline <= self.run.rollout.time(self.now) + left + GRACE, "an order that outlasts its window"

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
            waiting = [each for each in self.run.members.values() if each.ring == number and each.state in WAITING]
            assert all(each.was_replaced for each in waiting), tally
            assert not requires_zero_errors(rollout, number) or not tally.errors
        if rollout.terms.approval and ring == len(rollout.rings) - 1:
            assert self.was_approved
            assert rollout.approved_by == SECOND.actor

    def may_keep_the_version(self, member: RolloutMember) -> bool:
        """Whether it has the version through this rollout, and its last word is not that it does not have it."""
        return (
            self.versions.get(member.device_id) == "2.0"
            and bool(member.command_id)
            and not (member.device_id in self.denying and member.revert is RevertState.NONE)
        )

    def everyone_is_heard(self) -> None:
        self.unreachable.clear()
        self.isolated.clear()
        self.unreadable.clear()
        for device_id in self.run.members:
            self.denying.discard(device_id)
            self.run.on_report(device_id, self.installed(device_id, outcome="confirmed"), self.now)
        for _ in range(200):
            if not self.run.rollout.has_open_reverts and not self.run.queued_reverts:
                break
            for device_id, member in list(self.run.members.items()):
                self.run.on_reachable(device_id, self.now)
                if member.revert is RevertState.REVERTING:
                    self.versions[device_id] = "1.0"
                    self.run.on_report(device_id, InstalledVersion(is_known=True, version="1.0"), self.now)
            self.run_once(8)
            self.now += 1_700.0
        for member in self.run.members.values():
            if self.may_keep_the_version(member):
                assert member.revert is RevertState.NOT_REVERTED, f"it keeps the version in silence: {member}"
