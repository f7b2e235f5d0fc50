"""The order of waiting calls."""

import asyncio

from controller.adapters.emqx.client.slots import CallRank, PrioritySemaphore


class Callers:
    """Urgent and other callers, and the order in which they got a slot."""

    def __init__(self, at_once: int) -> None:
        self.slots = PrioritySemaphore(at_once)
        self.order: list[str] = []
        self.may_end = asyncio.Event()

    async def call(self, name: str, *, urgent: bool) -> None:
        async with self.slots.acquire(CallRank.URGENT if urgent else CallRank.OTHER):
            self.order.append(name)
            await self.may_end.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_urgent_waiters_go_first_each_queue_in_order() -> None:
    callers = Callers(2)
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c", "D", "e", "F"):
            group.create_task(callers.call(name, urgent=name.isupper()))
        await _settle()
        assert callers.order == ["a", "b"]
        callers.may_end.set()
    assert callers.order == ["a", "b", "D", "F", "c", "e"]


async def test_a_cancelled_waiter_takes_no_slot() -> None:
    callers = Callers(1)
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.call("first", urgent=False))
        await _settle()
        gone = [group.create_task(callers.call("gone", urgent=urgent)) for urgent in (True, False)]
        await _settle()
        for task in gone:
            task.cancel()
        group.create_task(callers.call("last", urgent=False))
        await _settle()
        callers.may_end.set()
    assert callers.order == ["first", "last"]


async def test_a_waiter_cancelled_as_it_gets_its_slot_releases_it() -> None:
    slots = PrioritySemaphore(1)
    entered: list[str] = []

    async def call(name: str) -> None:
        async with slots.acquire(CallRank.OTHER):
            entered.append(name)

    async with asyncio.TaskGroup() as group:
        async with slots.acquire(CallRank.OTHER):
            unlucky = group.create_task(call("unlucky"))
            await _settle()
        unlucky.cancel()  # its turn was given, it has not run yet
        group.create_task(call("next"))
    assert entered == ["next"]
    async with asyncio.timeout(1), slots.acquire(CallRank.OTHER):
        pass
