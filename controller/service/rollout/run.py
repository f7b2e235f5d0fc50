"""An open rollout in memory: its devices, the queues of pending ones, and their deadlines.

Each operation takes constant time for any size of the fleet. All state is derived from the stored rollout and its
members, so that a restart rebuilds it.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from controller.domain.principal import Principal
from controller.domain.rollout import lifecycle, revert
from controller.domain.rollout import member as member_rules
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    MemberTransition,
    RevertState,
    Rollout,
    RolloutDevice,
    RolloutMember,
    RolloutNote,
    RolloutState,
    replace_member,
)


@dataclass(slots=True)
class RolloutChanges:
    """What is not stored yet: the rollout, changed devices, audit notes, and commands to withdraw."""

    rollout: Rollout
    members: dict[str, RolloutMember] = field(default_factory=dict)
    notes: list[RolloutNote] = field(default_factory=list)
    withdrawals: list[tuple[str, str]] = field(default_factory=list)  # device id, command id
    is_rollout_changed: bool = False

    def __bool__(self) -> bool:
        return bool(self.is_rollout_changed or self.members or self.notes or self.withdrawals)


class RolloutRun:
    """A rollout that has not ended; the decisions are those of `lifecycle` and `member`."""

    def __init__(self, rollout: Rollout, members: Iterable[RolloutMember]) -> None:
        self.rollout = rollout
        self.members = {each.device_id: each for each in members}
        self.is_superseded = False  # it has ended, and a later rollout of the same name decides for its devices
        self._changes = RolloutChanges(rollout)
        self._queues: list[deque[str]] = [deque() for _ in rollout.rings]
        self._timers: list[tuple[float, str]] = []  # in the rollout's time
        self._openings: list[tuple[float, str]] = []  # of maintenance windows, by the wall clock
        self._pending_reverts: dict[str, None] = {}  # a queue without duplicates
        self._under_way: set[str] = set()
        for each in self.members.values():
            self._index(each)
        if rollout.is_reverting:
            self._collect_reverts()

    def _index(self, member: RolloutMember) -> None:
        device_id = member.device_id
        if member.not_before:
            heapq.heappush(self._openings, (member.not_before, device_id))
        elif member.revert is RevertState.PENDING:
            self._pending_reverts[device_id] = None
        elif member.state is MemberState.PENDING:
            self._queues[member.ring].append(device_id)
        if member.deadline:
            heapq.heappush(self._timers, (member.deadline, device_id))
        if member.state.is_under_way:
            self._under_way.add(device_id)
        else:
            self._under_way.discard(device_id)

    def uncertain_members(self) -> list[RolloutMember]:
        """Returns the devices whose reports or results may have been missed while the controller was down."""
        return [
            each
            for each in self.members.values()
            if each.revert is RevertState.REVERTING
            or each.state in (MemberState.CONFIRMED, MemberState.AWAY)
            or (self.rollout.is_reverting and each.state in (MemberState.FAILED, MemberState.DECLINED))
            or each.device_id in self._under_way
        ]

    @property
    def under_way(self) -> Collection[str]:
        """The devices with an order that has not ended."""
        return self._under_way

    def candidates(self, now: float, limit: int) -> list[str]:
        """Takes at most `limit` devices from the queues; each has to be passed to `schedule` or `requeue`."""
        if not lifecycle.may_issue_command(self.rollout, now):
            return []
        room = min(limit, lifecycle.room_under_way(self.rollout))
        chosen: list[str] = []
        for queue in self._queues[: self.rollout.ring + 1]:
            chosen += [queue.popleft() for _ in range(min(room - len(chosen), len(queue)))]
        return chosen

    def requeue(self, device_ids: list[str]) -> None:
        """Returns candidates to the front of the queue."""
        for device_id in reversed(device_ids):
            member = self.members[device_id]
            if member.state is MemberState.PENDING and not member.not_before:
                self._queues[member.ring].appendleft(device_id)

    def schedule(self, device: RolloutDevice, installed: InstalledVersion, now: float) -> bool:
        """Schedules a candidate; if true, the caller issues the command and reports its id or the refusal."""
        member = self.members[device.device_id]
        if member.state is not MemberState.PENDING:
            return False
        if not lifecycle.may_issue_command(self.rollout, now):
            self.requeue([device.device_id])
            return False
        after = self._apply_member(member_rules.schedule(self.rollout, member, device, installed, now))
        return after.state is MemberState.ORDERED

    def on_command_issued(self, device_id: str, command_id: str, now: float) -> None:
        """Records the command that follows `schedule` or `revert`."""
        member = self.members[device_id]
        rules = revert if member.revert is RevertState.REVERTING else member_rules
        self._apply_member(rules.on_command_issued(self.rollout, member, command_id, now))

    def on_command_refused(self, device_id: str, reason: str, now: float) -> None:
        """Records that no command followed `schedule` or `revert`."""
        member = self.members[device_id]
        rules = revert if member.revert is RevertState.REVERTING else member_rules
        self._apply_member(rules.on_command_refused(self.rollout, member, reason, now))

    def on_command_progress(self, device_id: str, progress: CommandProgress, now: float) -> None:
        """Applies a result of a command."""
        if device_id in self.members:
            self._apply_member(member_rules.on_command_progress(self.rollout, self.members[device_id], progress, now))

    def on_report(self, device_id: str, installed: InstalledVersion, now: float) -> None:
        """Applies a posture report."""
        if device_id not in self.members:
            return
        before = self.members[device_id]
        after = self._apply_member(member_rules.on_report(self.rollout, before, installed, now))
        if before.state.is_under_way and after.state is MemberState.PENDING:
            # Blank hardware took its place: the order was not meant for it.
            self._changes.withdrawals.append((device_id, before.command_id))

    def on_reachable(self, device_id: str, now: float) -> None:
        """Notes that a device can be updated, or ordered back, now."""
        member = self.members.get(device_id)
        if member is None:
            return
        if member.revert is RevertState.AWAY:
            self._pending_reverts[device_id] = None
        else:
            self._apply_member(member_rules.on_reachable(self.rollout, member, now))

    def on_stale(self, device_id: str, now: float) -> None:
        """Notes that a device became silent."""
        if device_id in self.members:
            self._apply_member(member_rules.on_stale(self.rollout, self.members[device_id], now))

    def tick(self, now: float) -> None:
        """Handles the deadlines that have passed and the windows that have opened, then advances the rollout."""
        time = self.rollout.time(now)
        while self._timers and self._timers[0][0] <= time:
            _, device_id = heapq.heappop(self._timers)
            member = self.members[device_id]
            if member.deadline and member.deadline <= time:
                if member.state is MemberState.ORDERED:
                    self._changes.withdrawals.append((device_id, member.command_id))
                self._apply_member(member_rules.time_out(self.rollout, member, now))
        while self._openings and self._openings[0][0] <= now:
            _, device_id = heapq.heappop(self._openings)
            member = self.members[device_id]
            if member.not_before and member.not_before <= now:
                self._apply_member(replace_member(self.rollout, member, now, not_before=0.0, reason=""))
        self._advance(now)
        if not self.rollout.state.is_active:
            self._withdraw_open(now)

    @property
    def queued_reverts(self) -> frozenset[str]:
        """The devices that `pending_reverts` will return."""
        return frozenset(self._pending_reverts)

    def pending_reverts(self, limit: int) -> list[str]:
        """Takes at most `limit` devices that have to revert; each has to be passed to `revert`."""
        chosen = list(itertools.islice(self._pending_reverts, limit))
        for device_id in chosen:
            del self._pending_reverts[device_id]
        return chosen

    def revert(self, device: RolloutDevice, now: float) -> bool:
        """Has a device revert; if true, the caller issues the command and reports its id or the refusal."""
        member = self.members[device.device_id]
        if member.revert not in (RevertState.NONE, RevertState.PENDING, RevertState.AWAY):
            return False
        after = self._apply_member(revert.schedule(self.rollout, member, device, now))
        return after.revert is RevertState.REVERTING

    def pause(self, by: str, now: float) -> None:
        """See `lifecycle.pause`, with the same errors."""
        self._apply_rollout(lifecycle.pause(self.rollout, by, now))

    def resume(self, by: str, now: float) -> None:
        """See `lifecycle.resume`, with the same errors."""
        self._apply_rollout(lifecycle.resume(self.rollout, by, now))

    def approve(self, by: Principal, now: float) -> None:
        """See `lifecycle.approve`, with the same errors."""
        self._apply_rollout(lifecycle.approve(self.rollout, by, now))

    def abort(self, by: str, now: float, *, revert: bool, reverts_now: bool = False, reason: str = "") -> None:
        """See `lifecycle.abort`, with the same errors."""
        self._apply_rollout(
            lifecycle.abort(self.rollout, by, now, revert=revert, reverts_now=reverts_now, reason=reason)
        )
        if revert:
            self._ask_again(now)
        self._withdraw_open(now)
        self._advance(now)

    def withdraw_target(self) -> None:
        """See `lifecycle.withdraw_target`."""
        self._apply_rollout(lifecycle.withdraw_target(self.rollout))

    def give_up_reverts(self, reason: str, now: float) -> None:
        """Orders nobody back any more; orders that were not begun are withdrawn."""
        self.is_superseded = True
        self._pending_reverts.clear()
        for member in list(self.members.values()):
            if member.revert is RevertState.REVERTING:
                self._changes.withdrawals.append((member.device_id, member.revert_command_id))
            if member.revert in (RevertState.PENDING, RevertState.AWAY, RevertState.REVERTING):
                self._apply_member(revert.give_up(self.rollout, member, reason, now))

    def on_clock_leap(self, seconds: float) -> None:
        """See `lifecycle.on_clock_leap`."""
        self._apply_rollout(lifecycle.on_clock_leap(self.rollout, seconds))

    def on_restart(self) -> None:
        """See `lifecycle.on_restart`."""
        self._apply_rollout((lifecycle.on_restart(self.rollout), ()))

    def take_changes(self) -> RolloutChanges:
        """Returns what has changed since the last call."""
        changes, self._changes = self._changes, RolloutChanges(self.rollout)
        changes.rollout = self.rollout
        return changes

    def _advance(self, now: float) -> None:
        pending = bool(self._pending_reverts)
        self._apply_rollout(lifecycle.advance(self.rollout, now, has_pending_reverts=pending))

    def _apply_member(self, transition: MemberTransition) -> RolloutMember:
        rollout, member = transition
        before = self.members[member.device_id]
        if member is before:
            return member
        self.members[member.device_id] = member
        self._changes.members[member.device_id] = member
        self._changes.is_rollout_changed = True
        self.rollout = rollout
        self._index(member)
        if rollout.is_reverting and revert.needs_revert(member) and not revert.needs_revert(before):
            self._pending_reverts[member.device_id] = None
        return member

    def _apply_rollout(self, transition: lifecycle.RolloutTransition) -> None:
        rollout, notes = transition
        if rollout is not self.rollout:
            is_revert_new = rollout.is_reverting and not self.rollout.is_reverting
            self.rollout = rollout
            self._changes.is_rollout_changed = True
            if is_revert_new:
                self._collect_reverts()
        self._changes.notes += notes

    def _withdraw_open(self, now: float) -> None:
        if self.rollout.state not in (RolloutState.ENDING, RolloutState.ROLLING_BACK):
            return
        for device_id in [each for each in self._under_way if self.members[each].state is MemberState.ORDERED]:
            member = self.members[device_id]
            self._changes.withdrawals.append((device_id, member.command_id))
            self._apply_member(member_rules.on_command_withdrawn(self.rollout, member, now))
        self._advance(now)

    def _collect_reverts(self) -> None:
        self._pending_reverts.update(
            (each.device_id, None) for each in self.members.values() if revert.needs_revert(each)
        )

    def _ask_again(self, now: float) -> None:
        """Queues every device that has not gone back: those that refused, and those that are waited for."""
        for member in list(self.members.values()):
            self._apply_member(revert.ask_again(self.rollout, member, now))
            if member.revert in (RevertState.PENDING, RevertState.AWAY):
                self._pending_reverts[member.device_id] = None
        self._collect_reverts()
