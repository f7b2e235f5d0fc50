import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fleet_devices import stored_devices
from tests.support.store import QUICK, child, commit_all, kept, line, opened, read_line
from tests.support.waiting import eventually

FRAME_HEADER = 24  # bytes before each page in the write-ahead log


async def test_everything_acknowledged_is_there_after_being_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    for life, lines in enumerate((1, 50, 333, 900, 1500)):
        async with child("-m", "tests.integration.store.child", "commit", str(path), f"life-{life}") as process:
            acknowledged |= {await read_line(process) for _ in range(lines)}
            process.kill()
            assert process.stdout is not None
            # What is said but cut in the middle of a word does not count as said.
            *rest, _ = (await process.stdout.read()).decode().split("\n")
            acknowledged |= set(rest)
        found = kept(path)
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
        async with opened(path) as store:
            assert {device.device_id for device in await stored_devices(store)} == set(found)


@pytest.fixture
async def torn(tmp_path: Path) -> tuple[Path, int, int]:
    """Database and log as a power loss would leave them, and where the last commit begins and ends in the log."""
    path, copy = tmp_path / "store.db", tmp_path / "torn.db"
    log, torn_log = tmp_path / "store.db-wal", tmp_path / "torn.db-wal"
    async with opened(path) as store:
        await commit_all(store, ["a", "b"])
        await store.commit(line("c"))
        begin = log.stat().st_size
        await store.commit(line("last"))
        end = log.stat().st_size
        shutil.copyfile(path, copy)
        shutil.copyfile(log, torn_log)
    assert end > begin + FRAME_HEADER + 4096
    return copy, begin, end


async def _opened_again(path: Path) -> list[str]:
    async with opened(path) as store:
        assert await store.effects()
        await store.commit(line("after"))
    return kept(path)


@pytest.mark.parametrize("at", [0, 1, FRAME_HEADER, FRAME_HEADER + 4096, -4097, -1])
async def test_a_log_that_was_cut_off_loses_only_the_commit_that_was_cut(torn: tuple[Path, int, int], at: int) -> None:
    path, begin, end = torn
    with path.with_name("torn.db-wal").open("r+b") as log:
        log.truncate((begin if at >= 0 else end) + at)
    assert await _opened_again(path) == ["a", "b", "c", "after"]


@pytest.mark.parametrize("at", [0, 8, 16, FRAME_HEADER, FRAME_HEADER + 2000, -4096, -1])
async def test_a_log_with_a_wrong_bit_loses_only_the_commit_it_is_in(torn: tuple[Path, int, int], at: int) -> None:
    path, begin, end = torn
    with path.with_name("torn.db-wal").open("r+b") as log:
        log.seek((begin if at >= 0 else end) + at)
        (byte,) = log.read(1)
        log.seek(-1, 1)
        log.write(bytes([byte ^ 1]))
    assert await _opened_again(path) == ["a", "b", "c", "after"]


@pytest.mark.parametrize("rubbish", [b"\0" * 10_000, bytes(range(256)) * 50])
async def test_rubbish_after_the_last_commit_loses_nothing(torn: tuple[Path, int, int], rubbish: bytes) -> None:
    path, _, _ = torn
    with path.with_name("torn.db-wal").open("ab") as log:
        log.write(rubbish)
    assert await _opened_again(path) == ["a", "b", "c", "last", "after"]


async def test_the_log_is_emptied_when_nothing_is_written(tmp_path: Path) -> None:
    log = tmp_path / "store.db-wal"
    async with opened(tmp_path / "store.db", replace(QUICK, idle_seconds=0.05)) as store:
        await commit_all(store, [f"name-{number}" for number in range(100)])
        await eventually(lambda: log.stat().st_size == 0)
        await store.commit(line("more"))
        await eventually(lambda: log.stat().st_size == 0)
    assert len(kept(tmp_path / "store.db")) == 101


async def test_the_log_does_not_grow_with_what_is_written(tmp_path: Path) -> None:
    log = tmp_path / "store.db-wal"
    async with opened(tmp_path / "store.db", replace(QUICK, checkpoint_pages=50, max_group_rows=30)) as store:
        sizes = []
        for step in range(40):
            await commit_all(store, [f"name-{step}-{number}" for number in range(50)])
            sizes.append(log.stat().st_size)
    assert max(sizes) < 200 * 4096
    assert len(kept(tmp_path / "store.db")) == 2000


async def test_a_log_that_a_reader_holds_on_to_is_shrunk_once_it_lets_go(tmp_path: Path) -> None:
    path, log = tmp_path / "store.db", tmp_path / "store.db-wal"
    options = replace(QUICK, checkpoint_pages=50, max_log_bytes=400 * 4096)
    async with opened(path, options) as store:
        await store.commit(line("first"))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM audit").fetchone() == (1,)
        for step in range(10):
            await commit_all(store, [f"name-{step}-{number}" for number in range(300)])
        assert log.stat().st_size > options.max_log_bytes
        assert reader.execute("SELECT count(*) FROM audit").fetchone() == (1,)
        reader.close()
        for step in range(2):  # the first may still have been begun at the end of the log
            await store.commit(line(f"after-{step}"))
        assert log.stat().st_size <= options.max_log_bytes
    assert len(kept(path)) == 3003
