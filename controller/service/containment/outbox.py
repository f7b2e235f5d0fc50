"""Carries effects out at least once: in order for one device, many devices at a time, never giving up."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.domain.effects import Effect, SendCommand
from controller.ports.log import Log
from controller.service.audit_log import about
from controller.service.containment.enforcer import EffectDone, EffectRetry, Enforcer
from controller.service.fleet_state import FleetState
from schemas.backoff import Backoff

# Devices worked on at once. Many, although the broker's API takes fewer calls: there the cuts go before the read-backs
# of those that are cut already, so that of a fleet that fails together all are cut before the first one is proven so.
CONTAINING: Final = 256
SENDING: Final = 32  # devices sent commands at once; apart, so that a link that hangs holds no containment up
RETRY: Final = Backoff(first=0.2, cap=15.0)  # seconds before the next attempt


@dataclass(slots=True)
class _Lane:
    """The effects of one device, oldest first."""

    waiting: deque[Effect] = field(default_factory=deque)
    attempts: int = 0
    resting: asyncio.TimerHandle | None = None


class Outbox:
    """Effects that were committed and not carried out yet. `counts`: done, retried."""

    def __init__(self, keeper: FleetState, enforcer: Enforcer, log: Log, rand: Callable[[], float]) -> None:
        self._keeper = keeper
        self._enforcer = enforcer
        self._log = log
        self._rand = rand
        self._lanes: dict[str, _Lane] = {}
        # Devices by the kind of their first effect; bounded by the number of devices.
        self._to_contain: asyncio.Queue[str] = asyncio.Queue()
        self._to_send: asyncio.Queue[str] = asyncio.Queue()
        self.counts: Counter[str] = Counter()

    @property
    def pending(self) -> int:
        """Effects not carried out yet."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    @property
    def troubled(self) -> int:
        """Devices whose next effect failed at least once and is tried again."""
        return sum(lane.attempts > 0 for lane in self._lanes.values())

    def is_busy(self, device_id: str) -> bool:
        """Whether something for this device is still to be carried out."""
        return device_id in self._lanes

    def put(self, effect: Effect) -> None:
        """Take an effect whose commit has returned."""
        lane = self._lanes.get(effect.device_id)
        if lane is None:
            lane = self._lanes[effect.device_id] = _Lane()
            lane.waiting.append(effect)
            self._offer(effect.device_id)
            return
        lane.waiting.append(effect)
        if lane.resting is not None:
            # News for a device that waits for another attempt: what is first may be void now.
            self._wake(effect.device_id)

    async def resume(self) -> int:
        """Take up what the store still holds, at the start; returns how many."""
        effects = await self._keeper.store.effects()
        for effect in effects:
            self.put(effect)
        return len(effects)

    async def run(self) -> None:
        """Until cancelled; an effect that was begun is begun again at the next start."""
        async with asyncio.TaskGroup() as group:
            for number in range(CONTAINING):
                group.create_task(self._work(self._to_contain), name=f"outbox-contain-{number}")
            for number in range(SENDING):
                group.create_task(self._work(self._to_send), name=f"outbox-send-{number}")

    async def drain(self) -> None:
        """Carry out what is ready now and return; what failed rests until its next attempt."""
        while ready := [queue for queue in (self._to_contain, self._to_send) if not queue.empty()]:
            await self._attempt(ready[0].get_nowait())

    async def _work(self, ready: asyncio.Queue[str]) -> None:
        while True:
            await self._attempt(await ready.get())

    def _offer(self, device_id: str) -> None:
        first = self._lanes[device_id].waiting[0]
        queue = self._to_send if isinstance(first, SendCommand) else self._to_contain
        queue.put_nowait(device_id)

    async def _attempt(self, device_id: str) -> None:
        lane = self._lanes[device_id]
        effect = lane.waiting[0]
        try:
            result: EffectDone | EffectRetry = await self._enforcer.carry_out(effect)
        except Exception as e:  # noqa: BLE001 - one device's trouble must never stop the others
            self._log("effect failed", {**about(effect), "error": repr(e)})
            result = EffectRetry(repr(e), None)
        if isinstance(result, EffectDone):
            await self._finish(lane, effect, result)
        else:
            await self._retry(lane, effect, result)

    async def _finish(self, lane: _Lane, effect: Effect, result: EffectDone) -> None:
        if result.event is not None:
            await self._keeper.handle(effect.device_id, result.event, done=(effect.effect_id,))
        else:
            await self._keeper.drop_effects((effect.effect_id,))
        self.counts["done"] += 1
        lane.waiting.popleft()
        lane.attempts = 0
        if lane.waiting:
            self._offer(effect.device_id)
        else:
            del self._lanes[effect.device_id]

    async def _retry(self, lane: _Lane, effect: Effect, result: EffectRetry) -> None:
        self.counts["retried"] += 1
        lane.attempts += 1
        if lane.attempts == 1:
            self._log("effect will be retried", {**about(effect), "trouble": result.trouble})
            if result.event is not None:
                await self._keeper.handle(effect.device_id, result.event)
        pause = RETRY.ceiling(lane.attempts - 1) * (0.5 + self._rand() / 2)
        loop = asyncio.get_running_loop()
        lane.resting = loop.call_later(pause, self._wake, effect.device_id)

    def _wake(self, device_id: str) -> None:
        lane = self._lanes.get(device_id)
        if lane is None or lane.resting is None:
            return
        lane.resting.cancel()
        lane.resting = None
        self._offer(device_id)
