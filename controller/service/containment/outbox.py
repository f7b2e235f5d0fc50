"""The outbox: effects are carried out at least once, in order per device, and retried without end."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.domain.effects import Effect, IsolateClient, RestrictClient, SendCommand
from controller.ports.log import Log
from controller.service.audit_log import effect_fields
from controller.service.containment.enforcer import EffectDone, EffectRetry, Enforcer
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork
from schemas.backoff import Backoff

# Devices at a time, of violations and of everything else, so that a violation waits for no worker that an operator's
# bulk work has taken. More than the broker's API takes calls: its queue puts containing calls before read-backs, so
# that of a fleet that fails together every device is contained before the first one is proven.
CONTAINING: Final = 256
SENDING: Final = 32  # devices sent commands at a time; apart, so that a hanging link delays no containment
RETRY: Final = Backoff(first=0.2, cap=15.0)  # seconds before the next attempt


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
    has changed.
    """

    def __init__(self, on_attempt: Callable[[str], None] = lambda _device_id: None) -> None:
        self._on_attempt = on_attempt
        self._lanes: dict[str, _Lane] = {}
        # Devices by the kind of their first effect; bounded by the number of devices.
        self.to_contain_first: asyncio.Queue[str] = asyncio.Queue()  # violations
        self.to_contain: asyncio.Queue[str] = asyncio.Queue()
        self.to_send: asyncio.Queue[str] = asyncio.Queue()

    def on_commit(self, batch: UnitOfWork) -> None:
        for effect in batch.effects:
            self.enqueue(effect)

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
        """Whether something for this device is still to be carried out."""
        return device_id in self._lanes

    def is_containing(self, device_id: str) -> bool:
        """Whether calls to the broker about this device are still to be made."""
        lane = self._lanes.get(device_id)
        return lane is not None and any(not isinstance(effect, SendCommand) for effect in lane.effects)

    def trouble_of(self, device_id: str) -> str:
        """What the last call to the broker about this device lacked; empty if it is not tried again."""
        lane = self._lanes.get(device_id)
        return "" if lane is None or isinstance(lane.effects[0], SendCommand) else lane.trouble

    def unread_of(self, device_id: str) -> tuple[tuple[str, str], ...]:
        """The running nodes, with the reason, that alone kept the last call to the broker from being proven."""
        lane = self._lanes.get(device_id)
        return () if lane is None or isinstance(lane.effects[0], SendCommand) else lane.unread

    def enqueue(self, effect: Effect) -> None:
        """Adds an effect whose commit has returned."""
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
        lane.effects.popleft()
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

    def _schedule(self, device_id: str) -> None:
        effect = self.first(device_id)
        if isinstance(effect, SendCommand):
            self.to_send.put_nowait(device_id)
        elif isinstance(effect, RestrictClient | IsolateClient) and effect.by_policy:
            self.to_contain_first.put_nowait(device_id)
        else:
            self.to_contain.put_nowait(device_id)


class Outbox:
    """Carries the queued effects out. `counts`: done, retried."""

    def __init__(
        self, fleet: FleetState, queue: EffectQueue, enforcer: Enforcer, log: Log, rand: Callable[[], float]
    ) -> None:
        self._fleet = fleet
        self.queue = queue
        self._enforcer = enforcer
        self._log = log
        self._rand = rand
        self.counts: Counter[str] = Counter()

    async def resume(self) -> int:
        """Queues what the store still holds, at the start; returns how many."""
        effects = await self._fleet.store.effects()
        for effect in effects:
            self.queue.enqueue(effect)
        return len(effects)

    async def run(self) -> None:
        """Until cancelled; an effect that was begun is begun again at the next start."""
        async with asyncio.TaskGroup() as group:
            for number in range(CONTAINING):
                group.create_task(self._work(self.queue.to_contain_first), name=f"outbox-violation-{number}")
                group.create_task(self._work(self.queue.to_contain), name=f"outbox-contain-{number}")
            for number in range(SENDING):
                group.create_task(self._work(self.queue.to_send), name=f"outbox-send-{number}")

    async def drain(self) -> None:
        """Carry out what is ready now and return; what failed rests until its next attempt."""
        queue = self.queue
        while ready := [one for one in queue.all if not one.empty()]:
            await self._attempt(ready[0].get_nowait())

    async def _work(self, ready: asyncio.Queue[str]) -> None:
        while True:
            await self._attempt(await ready.get())

    async def _attempt(self, device_id: str) -> None:
        effect = self.queue.first(device_id)
        try:
            result: EffectDone | EffectRetry = await self._enforcer.carry_out(effect)
        except Exception as e:  # noqa: BLE001 - one device's trouble must never stop the others
            self._log("effect failed", {**effect_fields(effect), "error": repr(e)})
            result = EffectRetry(repr(e), None)
        if isinstance(result, EffectDone):
            await self._finish(effect, result)
        else:
            await self._retry(effect, result)

    async def _finish(self, effect: Effect, result: EffectDone) -> None:
        if result.event is not None:
            await self._fleet.apply_and_commit(effect.device_id, result.event, done=(effect.effect_id,))
        else:
            await self._fleet.discard_effects((effect.effect_id,))
        self.counts["done"] += 1
        self.queue.complete(effect.device_id)

    async def _retry(self, effect: Effect, result: EffectRetry) -> None:
        self.counts["retried"] += 1
        attempts, is_news = self.queue.count_attempt(effect.device_id, result)
        if is_news:
            self._log("effect will be retried", {**effect_fields(effect), "trouble": result.trouble})
            if result.event is not None:
                await self._fleet.apply_and_commit(effect.device_id, result.event)
        pause = RETRY.ceiling(attempts - 1) * (0.5 + self._rand() / 2)
        self.queue.retry_in(effect.device_id, pause)
