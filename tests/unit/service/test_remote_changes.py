"""The leader hears of what other controllers decided about what it waits for."""

from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

import pytest

from controller.service.remote_changes import MOST_IN_TURN, RemoteChanges
from controller.service.unit_of_work import UnitOfWork
from tests.support.controller_harness import ControllerHarness, LogLines, open_harness
from tests.support.reports import full, incoming


class Watching:
    """What is waited for, and what was told."""

    def __init__(self, harness: ControllerHarness, patch: pytest.MonkeyPatch) -> None:
        self.harness = harness
        self.awaited: list[str] = []
        self.urgent: list[str] = []
        self.others: list[str] = []
        self.stored: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.told: list[UnitOfWork] = []
        self.passes = 0
        patch.setattr(harness.store, "versions", self._versions)
        sources = (lambda: self.awaited, lambda: self.urgent, lambda: self.others)
        self.remote = RemoteChanges(harness.fleet, harness.store, sources, (self,), self._pass, LogLines())

    def _pass(self) -> None:
        self.passes += 1

    async def _versions(self, ids: Collection[str]) -> Mapping[str, int]:
        self.asked.append(list(ids))
        return {one: self.stored.get(one, 1) for one in ids if one != "gone"}

    def on_commit(self, batch: UnitOfWork) -> None:
        self.told.append(batch)


@pytest.fixture
async def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watching]:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming(one, full(one, 1, 22)) for one in ("a", "b", "c")])
        yield Watching(harness, monkeypatch)


async def test_nothing_is_asked_where_nothing_is_waited_for(watching: Watching) -> None:
    await watching.remote.look()
    assert (watching.asked, watching.told, watching.passes) == ([], [], 1)


async def test_a_change_is_told_once(watching: Watching) -> None:
    watching.awaited = ["a", "b", "gone"]
    await watching.remote.look()
    assert [sorted(one.devices) for one in watching.told] == [["a", "b"]]  # they may have changed before
    await watching.remote.look()
    assert len(watching.told) == 1
    watching.stored["b"] = 2
    await watching.remote.look()
    assert list(watching.told[1].devices) == ["b"]
    assert watching.told[1].reports == {}


async def test_a_rollout_gets_the_last_report_of_its_devices(watching: Watching) -> None:
    watching.urgent = ["a"]
    await watching.remote.look()
    assert b'"a"' in watching.told[0].reports["a"].body


async def test_what_is_waited_for_no_more_is_forgotten(watching: Watching) -> None:
    watching.awaited = ["a"]
    await watching.remote.look()
    watching.awaited = []
    await watching.remote.look()
    watching.awaited = ["a"]
    await watching.remote.look()
    assert len(watching.told) == 2


async def test_many_devices_take_turns(watching: Watching) -> None:
    watching.others = [f"d{number:04}" for number in range(2 * MOST_IN_TURN + 10)]
    for _ in range(3):
        await watching.remote.look()
    asked = [one for ids in watching.asked for one in ids]
    assert sorted(asked) == watching.others
    assert max(map(len, watching.asked)) == MOST_IN_TURN


async def test_rows_from_before_a_commit_of_this_controller_are_not_told_after_it(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.others = ["a"]
    harness, read = watching.harness, watching.harness.store.report

    async def slow(device_id: str) -> bytes | None:
        before = await read(device_id)
        await harness.ingest.process_batch([incoming("a", full("a", 2, 23))])
        return before

    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "report", slow)
        await watching.remote.look()
    assert [list(one.devices) for one in watching.told] == [[]]
    await watching.remote.look()
    assert watching.told[1].reports["a"].body == await harness.store.report("a")
