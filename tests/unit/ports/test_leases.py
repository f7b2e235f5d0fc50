"""Buckets of devices, and what a controller holds that has its store for itself."""

import asyncio
import math

import pytest

from controller.ports.leases import ALL_BUCKETS, BUCKETS, AllLeases, Leases, bucket_of


def test_a_device_keeps_its_bucket_and_buckets_are_filled_alike() -> None:
    assert (bucket_of("dev-1"), bucket_of("\ud800")) == (bucket_of("dev-1"), bucket_of("\ud800"))
    counts = [0] * BUCKETS
    for number in range(BUCKETS * 100):
        counts[bucket_of(f"dev-{number:06d}")] += 1
    assert min(counts) > 50
    assert max(counts) < 150


async def test_a_controller_alone_holds_everything_for_ever() -> None:
    leases: Leases = AllLeases("here", "1.0", 5.0)
    assert leases.is_leader
    assert not leases.is_shared
    assert (leases.buckets, leases.lease_left()) == (ALL_BUCKETS, math.inf)
    changes, handed = leases.changes(), leases.handed_over()
    await anext(changes)
    assert await anext(handed) == ALL_BUCKETS
    for stream in (changes, handed):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
    (info,) = await leases.controllers()
    assert (info.name, info.version, info.since, info.buckets) == ("here", "1.0", 5.0, BUCKETS)
