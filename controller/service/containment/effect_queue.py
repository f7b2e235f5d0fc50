"""What is to be carried out: one lane of effects for each device, and the devices whose turn it is."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from controller.domain.effects import Effect, IsolateClient, RestrictClient, SendCommand
from controller.ports.leases import AllLeases, Leases, bucket_of
from controller.ports.store import Store
from controller.service.containment.enforcer import EffectRetry
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MOST_LOOKED_AT: Final = 1000  # devices of others


@dataclass(slots=True)
class _Lane:
    """The effects of one device, oldest first; `retry` is set while the first one waits for its next attempt."""

    effects: deque[Effect] = field(default_factory=deque)
    attempts: int = 0
    trouble: str = ""  # of the first effect's last attempt
    unread: tuple[tuple[str, str], ...] = ()  # running nodes that alone kept it from being proven
    retry: asyncio.TimerHandle | None = None


class EffectQueue:
    """Committed effects that are not carried out yet: one lane per device, and the devices whose turn it is.

    `on_attempt` is called with the device after each attempt: after the commit of what came of it, and after the queue
    has changed. Only effects of the buckets that `leases` has are taken.
    """

    def __init__(
        self, on_attempt: Callable[[str], None] = lambda _device_id: None, leases: Leases | None = None
    ) -> None:
        self._on_attempt = on_attempt
        self.leases = leases or AllLeases()
        self._lanes: dict[str, _Lane] = {}
        self._known: set[str] = set()  # ids of the effects in the lanes
        self._completed: list[set[str]] = []  # for each read of the store: ids of those that ended meanwhile
        self._under_way: set[str] = set()  # devices
        self._ended = asyncio.Event()
        self._elsewhere: dict[str, bool] = {}  # devices with effects of others, and whether one is for the broker
        # Devices by the kind of their first effect; bounded by the number of devices. Some may have no effect any more.
        self.to_contain_first: asyncio.Queue[str] = asyncio.Queue()  # violations
        self.to_contain: asyncio.Queue[str] = asyncio.Queue()
        self.to_send: asyncio.Queue[str] = asyncio.Queue()

    def on_commit(self, batch: UnitOfWork) -> None:
        for effect in batch.effects:
            if self.is_own(effect.device_id):
                self.enqueue(effect)
            elif self.leases.is_leader:  # operators wait for it here
                self._note_elsewhere(effect)

    def is_own(self, device_id: str) -> bool:
        """Whether this controller carries out the effects of the device."""
        return not self.leases.is_shared or bucket_of(device_id) in self.leases.buckets

    @property
    def all(self) -> tuple[asyncio.Queue[str], ...]:
        """The queues of devices whose turn it is, the most urgent first."""
        return self.to_contain_first, self.to_contain, self.to_send

    @property
    def pending(self) -> int:
        """Effects not carried out yet."""
        return sum(len(lane.effects) for lane in self._lanes.values())

    @property
    def troubled(self) -> int:
        """Devices whose next effect failed at least once and is tried again."""
        return sum(lane.attempts > 0 for lane in self._lanes.values())

    def is_busy(self, device_id: str) -> bool:
        """Whether something for this device is still to be carried out; by others, as `look` found last."""
        return device_id in self._lanes or device_id in self._elsewhere

    def is_containing(self, device_id: str) -> bool:
        """Whether calls to the broker about this device are still to be made; by others, as `look` found last."""
        lane = self._lanes.get(device_id)
        if lane is None:
            return self._elsewhere.get(device_id, False)
        return any(not isinstance(effect, SendCommand) for effect in lane.effects)

    def trouble_of(self, device_id: str) -> str:
        """What the last call to the broker about this device lacked; empty if it is not tried again."""
        lane = self._lanes.get(device_id)
        return "" if lane is None or isinstance(lane.effects[0], SendCommand) else lane.trouble

    def unread_of(self, device_id: str) -> tuple[tuple[str, str], ...]:
        """The running nodes, with the reason, that alone kept the last call to the broker from being proven."""
        lane = self._lanes.get(device_id)
        return () if lane is None or isinstance(lane.effects[0], SendCommand) else lane.unread

    def enqueue(self, effect: Effect) -> None:
        """Adds an effect whose commit has returned, unless it is known."""
        if effect.effect_id in self._known:
            return
        self._known.add(effect.effect_id)
        lane = self._lanes.get(effect.device_id)
        if lane is None:
            lane = self._lanes[effect.device_id] = _Lane()
            lane.effects.append(effect)
            self._schedule(effect.device_id)
            return
        lane.effects.append(effect)
        # A later decision may have made the first effect void: it does not wait for its next attempt.
        self.retry_now(effect.device_id)

    def first(self, device_id: str) -> Effect:
        """The effect to carry out next; the device has one."""
        return self._lanes[device_id].effects[0]

    def complete(self, device_id: str) -> None:
        """Removes the device's first effect, and schedules the device if it has another."""
        lane = self._lanes[device_id]
        self._forget(lane.effects.popleft())
        lane.attempts, lane.trouble, lane.unread = 0, "", ()
        if lane.effects:
            self._schedule(device_id)
        else:
            del self._lanes[device_id]
        self._on_attempt(device_id)

    def count_attempt(self, device_id: str, result: EffectRetry) -> tuple[int, bool]:
        """Counts a failed attempt of the device's first effect; returns their number, and whether it brought news."""
        lane = self._lanes[device_id]
        nodes, before = [node for node, _ in result.unread], [node for node, _ in lane.unread]
        is_news = lane.attempts == 0 or nodes != before
        lane.attempts += 1
        lane.trouble, lane.unread = result.trouble, result.unread
        return lane.attempts, is_news

    def retry_in(self, device_id: str, seconds: float) -> None:
        """Schedules the device again after a pause."""
        self._lanes[device_id].retry = asyncio.get_running_loop().call_later(seconds, self.retry_now, device_id)
        self._on_attempt(device_id)

    def retry_now(self, device_id: str) -> None:
        """Ends the pause before the device's next attempt, if there is one."""
        lane = self._lanes.get(device_id)
        if lane is None or lane.retry is None:
            return
        lane.retry.cancel()
        lane.retry = None
        self._schedule(device_id)

    def begin(self, device_id: str) -> bool:
        """Begins an attempt; false if there is nothing to do now: it is under way, pauses, or is another's."""
        lane = self._lanes.get(device_id)
        if lane is None or lane.retry is not None or device_id in self._under_way:
            return False
        self._under_way.add(device_id)
        return True

    def end(self, device_id: str) -> None:
        """Ends an attempt; what is no longer this controller's is left to others."""
        self._under_way.discard(device_id)
        if not self.is_own(device_id):
            self._drop(device_id)
        self._ended.set()

    async def quiesce(self, buckets: frozenset[int]) -> None:
        """Drops what is pending of buckets, once what is under way has ended."""
        for device_id in [one for one in self._lanes if bucket_of(one) in buckets and one not in self._under_way]:
            self._drop(device_id)
        while any(bucket_of(device_id) in buckets for device_id in self._under_way):
            self._ended.clear()
            await self._ended.wait()

    async def merge(self, reading: Awaitable[Iterable[Effect]]) -> None:
        """Adds what the store holds, oldest first, but for what was carried out while it was read.

        Raises:
            StoreError: the store cannot be read.
        """
        completed: set[str] = set()
        self._completed.append(completed)
        try:
            for effect in await reading:
                if effect.effect_id not in completed and self.is_own(effect.device_id):
                    self.enqueue(effect)
        finally:
            self._completed = [one for one in self._completed if one is not completed]

    async def look(self, store: Store, *device_ids: str) -> list[str]:
        """Asks the store which devices have effects that other controllers carry out; returns those that had some.

        Raises:
            StoreError: the store cannot be read.
        """
        foreign = {one for one in device_ids if not self.is_own(one)}
        found = await store.effects(devices=sorted(foreign)) if foreign else ()
        ended = [one for one in device_ids if self._elsewhere.pop(one, None) is not None]
        for effect in found:
            if effect.device_id in foreign:
                self._note_elsewhere(effect)
        return [one for one in ended if one not in self._elsewhere]

    def tell(self, device_ids: Iterable[str]) -> None:
        """Tells those who wait for them that something was done."""
        for device_id in device_ids:
            self._on_attempt(device_id)

    @property
    def elsewhere(self) -> list[str]:
        """Some devices of which other controllers had something to carry out, those looked at longest ago first."""
        return list(islice(self._elsewhere, MOST_LOOKED_AT))

    def _note_elsewhere(self, effect: Effect) -> None:
        is_for_broker = not isinstance(effect, SendCommand)
        self._elsewhere[effect.device_id] = is_for_broker or self._elsewhere.get(effect.device_id, False)

    async def repeat(self, effect: Effect, fleet: FleetState) -> None:
        """Has an effect carried out again that follows from no decision, by whoever holds the device's bucket."""
        if self.is_own(effect.device_id):
            self.enqueue(effect)
        else:
            await fleet.commit(UnitOfWork(effects=[effect]))

    def _drop(self, device_id: str) -> None:
        lane = self._lanes.pop(device_id, None)
        if lane is not None:
            for effect in lane.effects:
                self._known.discard(effect.effect_id)
            if lane.retry is not None:
                lane.retry.cancel()

    def _forget(self, effect: Effect) -> None:
        self._known.discard(effect.effect_id)
        for completed in self._completed:
            completed.add(effect.effect_id)

    def _schedule(self, device_id: str) -> None:
        effect = self.first(device_id)
        if isinstance(effect, SendCommand):
            self.to_send.put_nowait(device_id)
        elif isinstance(effect, RestrictClient | IsolateClient) and effect.by_policy:
            self.to_contain_first.put_nowait(device_id)
        else:
            self.to_contain.put_nowait(device_id)
