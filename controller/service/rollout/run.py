"""One rollout in memory: its devices, whose turn it is, what times out when. Every step costs the same in any fleet.

Nothing of it is more than its rollout and members say: it is built again from them after a restart. `now` is given.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.domain.rollout import lifecycle as whole
from controller.domain.rollout import member as one
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    Rollout,
    RolloutDevice,
    RolloutMember,
    RolloutNote,
    RolloutState,
    command_of,
)
from schemas.commands import CommandState


@dataclass(slots=True)
class RolloutChanges:
    """What is not kept yet: the rollout, the devices that changed, lines of the record, commands to take back."""

    rollout: Rollout
    members: dict[str, RolloutMember] = field(default_factory=dict)
    notes: list[RolloutNote] = field(default_factory=list)
    withdrawals: list[tuple[str, str]] = field(default_factory=list)  # device id, command id
    is_new: bool = False  # whether anything of the rollout itself changed

    def __bool__(self) -> bool:
        return bool(self.is_new or self.members or self.notes or self.withdrawals)


class RolloutRun:
    """A rollout that has not ended."""

    def __init__(self, rollout: Rollout, members: Iterable[RolloutMember]) -> None:
        self.rollout = rollout
        self.members = {member.device_id: member for member in members}
        self._changes = RolloutChanges(rollout)
        self._queues: list[deque[str]] = [deque() for _ in rollout.rings]
        self._timers: list[tuple[float, str]] = []
        self._to_send_back: deque[str] = deque()
        self._under_way: set[str] = set()
        for member in self.members.values():
            self._place(member)
        if rollout.is_reverting:
            self._gather_returns()

    def _place(self, member: RolloutMember) -> None:
        device_id = member.device_id
        if member.state is MemberState.PENDING:
            if member.not_before:
                heapq.heappush(self._timers, (member.not_before, device_id))
            else:
                self._queues[member.ring].append(device_id)
        if member.deadline:
            heapq.heappush(self._timers, (member.deadline, device_id))
        if member.state.is_under_way:
            self._under_way.add(device_id)
        else:
            self._under_way.discard(device_id)

    def unsure(self) -> list[RolloutMember]:
        """Those of whom something may have been heard that did not get here before a restart."""
        back = (member for member in self.members.values() if member.back is RevertState.REVERTING)
        confirmed = (member for member in self.members.values() if member.state is MemberState.CONFIRMED)
        found = {member.device_id: member for member in (*back, *confirmed)}
        return [*found.values(), *(self.members[one_id] for one_id in self._under_way if one_id not in found)]

    def candidates(self, now: float, most: int) -> list[str]:
        """Devices whose turn has come, at most `most`; each has to be given to `turn`, or back to `put_back`."""
        if not whole.may_order(self.rollout, now):
            return []
        queue = self._queues[self.rollout.ring]
        room = whole.most_under_way(self.rollout) - self.rollout.now_ring.under_way
        return [queue.popleft() for _ in range(min(most, room, len(queue)))]

    def put_back(self, device_ids: list[str]) -> None:
        """Their turn did not come after all; they stay the first."""
        for device_id in reversed(device_ids):
            member = self.members[device_id]
            if member.state is MemberState.PENDING and not member.not_before:
                self._queues[member.ring].appendleft(device_id)

    def turn(self, view: RolloutDevice, found: InstalledVersion, now: float, order_id: str) -> RolloutMember | None:
        """Order a candidate, or note why not; the member as it is ordered, else `None`."""
        member = self.members[view.device_id]
        if member.state is not MemberState.PENDING:
            return None
        if not whole.may_order(self.rollout, now):
            self.put_back([view.device_id])
            return None
        after = self._took(one.turn(self.rollout, member, view, found, now, order_id))
        return after if after.state is MemberState.ORDERED else None

    def told(self, device_id: str, news: CommandProgress, now: float) -> None:
        """A command got further."""
        if device_id in self.members:
            self._took(one.told(self.rollout, self.members[device_id], news, now))

    def looked(self, device_id: str, found: InstalledVersion, now: float) -> None:
        """A report came."""
        if device_id in self.members:
            self._took(one.looked(self.rollout, self.members[device_id], found, now))

    def came_back(self, device_id: str, now: float) -> None:
        """A device that could not be reached is there."""
        if device_id in self.members:
            self._took(one.came_back(self.rollout, self.members[device_id], now))

    def fell_silent(self, device_id: str, now: float) -> None:
        """Nothing is heard of a device any more."""
        if device_id in self.members:
            self._took(one.fell_silent(self.rollout, self.members[device_id], now))

    def refused(self, device_id: str, order_id: str, reason: str, now: float) -> None:
        """The order that `turn` or `sent_back` asked for was not issued."""
        self.told(device_id, CommandProgress(command_of(order_id), CommandState.REJECTED.value, reason), now)

    def tick(self, now: float) -> None:
        """Let time pass: what is due now, and what follows for the whole."""
        while self._timers and self._timers[0][0] <= now:
            _, device_id = heapq.heappop(self._timers)
            member = self.members[device_id]
            if member.deadline and member.deadline <= now:
                if member.state is MemberState.ORDERED:
                    self._changes.withdrawals.append((device_id, member.command_id))
                self._took(one.silent_too_long(self.rollout, member, now))
            elif member.state is MemberState.PENDING and member.not_before and member.not_before <= now:
                self._took(one.put(self.rollout, member, now, not_before=0.0, reason=""))
        self._decided(whole.settle(self.rollout, now, left=bool(self._to_send_back)))
        if not self.rollout.state.goes_on:
            self._leave(now)

    def returns(self, most: int) -> list[str]:
        """Devices to be ordered back, at most `most`; each has to be given to `sent_back`."""
        queue = self._to_send_back
        return [queue.popleft() for _ in range(min(most, len(queue)))]

    def sent_back(self, device_id: str, now: float, back_id: str) -> RolloutMember:
        """A device is ordered back."""
        return self._took(one.sent_back(self.rollout, self.members[device_id], now, back_id))

    def pause(self, by: str) -> None:
        """See `controller.domain.rollout.lifecycle.pause`."""
        self._decided(whole.pause(self.rollout, by))

    def resume(self, by: str) -> None:
        """See `controller.domain.rollout.lifecycle.resume`."""
        self._decided(whole.resume(self.rollout, by))

    def approve(self, by: str, now: float) -> None:
        """See `controller.domain.rollout.lifecycle.approve`."""
        self._decided(whole.approve(self.rollout, by, now))

    def abort(self, by: str, now: float, *, revert: bool, reason: str = "") -> None:
        """See `controller.domain.rollout.lifecycle.abort`."""
        was_reverting = self.rollout.is_reverting
        self._decided(whole.abort(self.rollout, by, revert=revert, reason=reason))
        if revert and not was_reverting:
            self._gather_returns()
        self._leave(now)
        self._decided(whole.settle(self.rollout, now, left=bool(self._to_send_back)))

    def drain(self) -> RolloutChanges:
        """What has changed since the last call."""
        changes, self._changes = self._changes, RolloutChanges(self.rollout)
        changes.rollout = self.rollout
        return changes

    def _took(self, moved: tuple[Rollout, RolloutMember]) -> RolloutMember:
        rollout, member = moved
        before = self.members[member.device_id]
        if member is before:
            return member
        self.members[member.device_id] = member
        self._changes.members[member.device_id] = member
        self._changes.is_new = True
        self.rollout = rollout
        self._place(member)
        if rollout.is_reverting and before.state.is_under_way and one.has_to_go_back(member):
            self._to_send_back.append(member.device_id)
        return member

    def _decided(self, decided: tuple[Rollout, tuple[RolloutNote, ...]]) -> None:
        rollout, notes = decided
        if rollout is not self.rollout:
            started = rollout.is_reverting and not self.rollout.is_reverting
            self.rollout = rollout
            self._changes.is_new = True
            if started:
                self._gather_returns()
        self._changes.notes += notes

    def _leave(self, now: float) -> None:
        """The rollout goes on no more: orders that were not begun are taken back."""
        if self.rollout.state not in (RolloutState.ENDING, RolloutState.ROLLING_BACK):
            return
        for device_id in [each for each in self._under_way if self.members[each].state is MemberState.ORDERED]:
            member = self.members[device_id]
            self._changes.withdrawals.append((device_id, member.command_id))
            self._took(one.withdrawn(self.rollout, member, now))
        self._decided(whole.settle(self.rollout, now, left=bool(self._to_send_back)))

    def _gather_returns(self) -> None:
        queued = set(self._to_send_back)
        self._to_send_back.extend(
            member.device_id
            for member in self.members.values()
            if one.has_to_go_back(member) and member.device_id not in queued
        )
