"""The outbox: effects are carried out at least once, in order per device, and retried without end.

Each controller carries out the effects of the buckets that it holds. What another one decided for them is read from the
store, as is everything that is pending when a bucket is taken over.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from controller.domain.effects import Effect
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.audit_log import effect_fields
from controller.service.containment.effect_queue import EffectQueue
from controller.service.containment.enforcer import EffectDone, EffectRetry, Enforcer
from controller.service.fleet_state import FleetState
from schemas.backoff import Backoff

# Devices at a time, of violations and of everything else, so that a violation waits for no worker that an operator's
# bulk work has taken. More than the broker's API takes calls: its queue puts containing calls before read-backs, so
# that of a fleet that fails together every device is contained before the first one is proven.
CONTAINING: Final = 256
SENDING: Final = 32  # devices sent commands at a time; apart, so that a hanging link delays no containment
RETRY: Final = Backoff(first=0.2, cap=15.0)  # seconds before the next attempt
# The time limit of a call that protects (`controller.adapters.emqx.client.http`): none begins that the lease would not
# outlast. A longer act is ended when the lease is over.
ACT_SECONDS: Final = 2.0
_LOOK: Final = 0.05  # seconds between two looks at a lease that is nearly over
_LOOK_EVERY: Final = 1.0  # seconds between two looks at what others carry out, or until a failed read is repeated
_MOST_READ: Final = 1000  # devices whose effects are read at once


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
        self._leases = queue.leases
        self.counts: Counter[str] = Counter()

    async def resume(self) -> int:
        """Queues what the store still holds, at the start; returns how many."""
        leases = self._leases
        await self.queue.merge(self._fleet.store.effects(leases.buckets if leases.is_shared else None))
        return self.queue.pending

    async def run(self) -> None:
        """Until cancelled; an effect that was begun is begun again at the next start."""
        async with asyncio.TaskGroup() as group:
            if self._leases.is_shared:
                self._leases.before_release(self.queue.quiesce)
                group.create_task(self._take_over(), name="outbox-take-over")
                group.create_task(self._follow(), name="outbox-decided-by-others")
                group.create_task(self._look(), name="outbox-of-others")
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

    async def _take_over(self) -> None:
        """Takes over what buckets that are new have pending."""
        async for buckets in self._leases.handed_over():
            await self._merge(buckets, None)

    async def _follow(self) -> None:
        """Takes over what others decide for devices of the held buckets; no read of all that is pending delays it."""
        async for devices in self._leases.devices_handed_over():
            names = sorted(devices)
            for first in range(0, len(names), _MOST_READ):
                await self._merge(None, names[first : first + _MOST_READ])

    async def _merge(self, buckets: frozenset[int] | None, devices: Sequence[str] | None) -> None:
        """Reads until it succeeds: nobody names them again."""
        told = ""
        while True:
            try:
                return await self.queue.merge(self._fleet.store.effects(buckets, devices))
            except StoreError as e:
                if str(e) != told:
                    self._log("pending effects cannot be read", {"error": str(e)})
                told = str(e)
            await asyncio.sleep(_LOOK_EVERY)

    async def _look(self) -> None:
        """Looks each second what others have carried out, for those who wait for it here."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            with contextlib.suppress(StoreError):  # the store's own health tells of it
                ended = await self.queue.look(self._fleet.store, *self.queue.elsewhere)
                await self._fleet.load(ended, fresh=True)
                self.queue.tell(ended)

    async def _work(self, ready: asyncio.Queue[str]) -> None:
        while True:
            await self._attempt(await ready.get())

    async def _attempt(self, device_id: str) -> None:
        if not self.queue.begin(device_id):
            return
        try:
            await self._carry_out(self.queue.first(device_id))
        finally:
            self.queue.end(device_id)

    async def _carry_out(self, effect: Effect) -> None:
        try:
            async with self._within_lease():
                result: EffectDone | EffectRetry = await self._enforcer.carry_out(effect)
        except Exception as e:  # noqa: BLE001 - one device's trouble must never stop the others
            self._log("effect failed", {**effect_fields(effect), "error": repr(e)})
            result = EffectRetry(repr(e), None)
        if isinstance(result, EffectDone):
            await self._finish(effect, result)
        else:
            await self._retry(effect, result)

    @contextlib.asynccontextmanager
    async def _within_lease(self) -> AsyncIterator[None]:
        """Begins when the lease outlasts a call that protects; ends with the lease.

        Raises:
            StoreError: the lease is over.
        """
        if not self._leases.is_shared:
            yield
            return
        while self._leases.lease_left() <= ACT_SECONDS:  # noqa: ASYNC110 - time passes, nothing happens
            await asyncio.sleep(_LOOK)
        loop, limit = asyncio.get_running_loop(), asyncio.timeout(self._leases.lease_left())

        timer: asyncio.TimerHandle

        def extend() -> None:
            nonlocal timer
            if not limit.expired():
                limit.reschedule(loop.time() + self._leases.lease_left())
                timer = loop.call_later(ACT_SECONDS / 2, extend)

        timer = loop.call_later(ACT_SECONDS / 2, extend)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise StoreError("the lease of this controller is over") from None
            raise
        finally:
            timer.cancel()

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
