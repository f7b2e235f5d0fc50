"""A controller beside others carries out the effects of its own devices only, and only within its lease."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.emqx.client.http import PROMPT_CALL_SECONDS
from controller.domain.containment.plan import Subject
from controller.domain.effects import Effect
from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import Proof
from controller.ports.broker_tables import restriction
from controller.ports.leases import ALL_BUCKETS, bucket_of
from controller.ports.store import StoreWrites
from controller.service.containment import outbox
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.leases import MemoryLeases

MINE, OTHERS = "edge-1", "edge-2"
HELD = ALL_BUCKETS - {bucket_of(OTHERS)}


@contextlib.asynccontextmanager
async def carrying_out(harness: ControllerHarness) -> AsyncIterator[None]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(harness.outbox.run())
        yield
        running.cancel()


async def contain(harness: ControllerHarness, device_id: str) -> None:
    order = ContainmentOrdered(harness.fleet.new_id(), ContainmentLevel.RESTRICTED, "operator:a", "odd", None)
    await harness.fleet.apply_and_commit(device_id, order)


async def settled(harness: ControllerHarness) -> None:
    while harness.outbox.queue.pending:
        await asyncio.sleep(0.001)


def test_no_act_begins_that_a_protecting_call_would_outlast() -> None:
    assert outbox.ACT_SECONDS >= PROMPT_CALL_SECONDS


async def test_what_was_decided_for_the_bucket_of_another_is_left_to_it_until_it_is_taken_over(tmp_path: Path) -> None:
    leases = MemoryLeases(HELD)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness, carrying_out(harness):
        await contain(harness, MINE)
        await contain(harness, OTHERS)
        await settled(harness)
        assert set(harness.broker.rules_held) == {MINE}
        assert not harness.outbox.queue.is_busy(OTHERS)
        await harness.outbox.queue.look(harness.store, OTHERS)
        assert harness.outbox.queue.is_containing(OTHERS)
        leases.set(ALL_BUCKETS)
        for _ in range(2):  # what is known is not taken twice
            leases.hand_over(frozenset({bucket_of(OTHERS)}))
        while OTHERS not in harness.broker.rules_held:
            await asyncio.sleep(0.001)
        await settled(harness)
        assert [call for call in harness.broker.calls if OTHERS in str(call)][1:] == []
        assert harness.outbox.counts["done"] == 2
        assert await harness.store.effects() == []


async def test_what_another_decided_for_a_device_waits_for_no_read_of_all_that_is_pending(tmp_path: Path) -> None:
    leases = MemoryLeases(HELD)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness:
        await contain(harness, OTHERS)
        read = harness.store.effects

        async def slow(buckets: frozenset[int] | None = None, devices: Sequence[str] | None = None) -> Sequence[Effect]:
            if devices is None:
                await asyncio.Event().wait()
            return await read(buckets, devices)

        leases.set(ALL_BUCKETS)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(harness.store, "effects", slow)
            async with carrying_out(harness):
                leases.hand_over(ALL_BUCKETS)
                await asyncio.sleep(0.01)
                leases.named.put_nowait(frozenset({OTHERS}))
                while OTHERS not in harness.broker.rules_held:
                    await asyncio.sleep(0.001)
                await settled(harness)


async def test_the_leader_sees_when_another_has_carried_out_what_was_decided_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_LOOK_EVERY", 0.001)
    leases = MemoryLeases(HELD, is_leader=True)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness, carrying_out(harness):
        await contain(harness, OTHERS)
        for _ in range(3):
            assert harness.outbox.queue.is_containing(OTHERS)
            await asyncio.sleep(0.01)
        (effect,) = await harness.store.effects()
        await harness.store.commit(StoreWrites(done=(effect.effect_id,)))
        while harness.outbox.queue.is_busy(OTHERS):
            await asyncio.sleep(0.001)
        assert harness.broker.calls == []


async def test_buckets_are_given_away_once_what_is_under_way_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness:
        begun, release = asyncio.Event(), asyncio.Event()
        restrict = type(harness.broker).restrict

        async def slow(self: object, subject: Subject, *args: Any, **options: Any) -> Proof:
            begun.set()
            await release.wait()
            proof: Proof = await restrict(self, subject, *args, **options)  # type: ignore[arg-type]
            return proof

        monkeypatch.setattr(type(harness.broker), "restrict", slow)
        async with carrying_out(harness), asyncio.TaskGroup() as group:
            await contain(harness, OTHERS)
            await begun.wait()
            leases.set(HELD)
            (quiesce,) = leases.quiesce
            leaving = group.create_task(quiesce(frozenset({bucket_of(OTHERS)})))
            await asyncio.sleep(0.01)
            assert not leaving.done()
            release.set()
            await leaving
            assert harness.outbox.queue.pending == 0
        assert harness.broker.rules_held[OTHERS] == restriction(OTHERS)


async def test_a_pending_effect_that_rests_is_dropped_at_once(tmp_path: Path) -> None:
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness:
        await contain(harness, OTHERS)
        leases.set(HELD)
        await harness.outbox.queue.quiesce(frozenset({bucket_of(OTHERS)}))
        assert harness.outbox.queue.pending == 0
        await harness.drain()
        assert harness.broker.rules_held == {}
        assert len(await harness.store.effects()) == 1


async def test_nothing_begins_at_the_broker_while_the_lease_is_nearly_over_and_what_is_under_way_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ACT_SECONDS", 0.02)
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness:
        cancelled = asyncio.Event()

        async def hangs(*_arguments: object, **_options: object) -> Proof:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

        async with carrying_out(harness):
            with monkeypatch.context() as patched:
                patched.setattr(type(harness.broker), "restrict", hangs)
                leases.left = 0.01
                await contain(harness, MINE)
                await asyncio.sleep(0.03)
                assert not cancelled.is_set()
                leases.left = 0.05
                await asyncio.sleep(0.07)  # begun
                leases.left = 0.0
                await cancelled.wait()
            leases.left = 3.0
            await settled(harness)
        assert harness.broker.rules_held[MINE] == restriction(MINE)
