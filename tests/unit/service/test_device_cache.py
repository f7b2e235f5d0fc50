"""A bounded part of the fleet in memory: loaded by id, dropped when it is old, never while it is ahead of its row."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from controller.domain.device import Device
from controller.domain.evolve import evolve
from controller.service.device_cache import DeviceCache
from controller.service.unit_of_work import UnitOfWork


class Rows:
    """Rows by id; a read waits while `gate` is not set, and gives what was there when it began."""

    def __init__(self, *ids: str) -> None:
        self.rows = {one: (Device(one, 0.0, 0.0), 1) for one in ids}
        self.reads: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, ids: Collection[str]) -> Sequence[tuple[Device, int]]:
        self.reads.append(sorted(ids))
        found = [self.rows[one] for one in ids if one in self.rows]
        await self.gate.wait()
        return found

    def change(self, device_id: str, version: int, **changes: Any) -> None:
        self.rows[device_id] = evolve(self.rows[device_id][0], **changes), version


def cache_over(rows: Rows, most: int = 3, *, is_shared: bool = True) -> DeviceCache:
    store: Any = rows
    return DeviceCache(store, most, is_shared=is_shared)


async def test_who_is_not_known_is_told_from_who_was_not_loaded() -> None:
    cache = cache_over(Rows("a"))
    await cache.load(["a", "x"])
    assert cache.get("a") is not None
    assert cache.get("x") is None
    with pytest.raises(AssertionError, match="b was not loaded"):
        cache.get("b")


async def test_what_is_there_is_not_read_again() -> None:
    rows = Rows("a", "b")
    cache = cache_over(rows)
    await cache.load(["a"])
    await cache.load(["a", "b"])
    await cache.load(("a", "b"))
    assert rows.reads == [["a"], ["b"]]


async def test_the_oldest_is_dropped_but_not_what_is_kept_or_being_committed() -> None:
    cache, dropped = cache_over(Rows(*"abcdefg")), list[str]()
    cache.on_dropped(dropped.append)
    await cache.load("abc")
    device = cache.get("a")
    assert device is not None
    cache.under_way[UnitOfWork(devices={"a": device})] = None
    with cache.keep(["b"]):
        await cache.load("defg")
        assert sorted(one for one in "abcdefg" if one in cache) == list("abdefg")
    assert dropped == ["c"]
    cache.under_way.clear()
    await cache.load("c")
    assert len(cache) == 3
    assert "c" in cache


async def test_unknown_ids_make_room_for_each_other() -> None:
    cache = cache_over(Rows(*"abc"))
    await cache.load("abc")
    for number in range(5):
        await cache.load([f"x{number}"])
    assert [one for one in ("a", "b", "c", "x3", "x4") if one in cache] == ["b", "c", "x4"]


async def test_a_fresh_look_takes_what_others_stored_and_nothing_older_than_a_decision() -> None:
    rows = Rows("a", "b")
    cache, dropped = cache_over(rows), list[str]()
    cache.on_dropped(dropped.append)
    await cache.load("ab")
    rows.change("a", 2, online=True)
    await cache.load("ab", fresh=True)
    assert (cache.peek("a"), dropped, cache.versions) == (rows.rows["a"][0], ["a"], {"a": 2, "b": 1})
    rows.gate.clear()
    decided = evolve(rows.rows["a"][0], tags=("lab",))
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.load("ab", fresh=True))
        await asyncio.sleep(0)
        cache.put(decided)
        rows.gate.set()
    assert cache.peek("a") is decided


async def test_of_one_controller_rows_are_never_newer() -> None:
    rows = Rows("a")
    cache = cache_over(rows, is_shared=False)
    await cache.load("a")
    await cache.load("a", fresh=True)
    assert (rows.reads, cache.versions) == ([["a"]], {})


async def test_a_refused_decision_is_read_again() -> None:
    rows = Rows("a")
    cache = cache_over(rows)
    await cache.load("a")
    cache.put(evolve(rows.rows["a"][0], tags=("undone",)))
    cache.outdate(["a", "never loaded"])
    await cache.load("a")
    assert cache.peek("a") == rows.rows["a"][0]
    assert "never loaded" not in cache


async def test_two_that_load_the_same_device_read_it_once() -> None:
    rows = Rows("a")
    cache = cache_over(rows)
    await asyncio.gather(cache.load("a"), cache.load("a"))
    assert rows.reads == [["a"]]
