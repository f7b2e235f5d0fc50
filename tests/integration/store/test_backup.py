import asyncio
import stat
from pathlib import Path

import pytest

from controller.ports.errors import StoreError
from tests.support.store import commit_all, kept, line, names_in, opened


async def test_a_copy_is_whole_and_of_one_moment_while_writing_goes_on(tmp_path: Path) -> None:
    path, target = tmp_path / "store.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await commit_all(store, [f"before-{number}" for number in range(2000)])
        async with asyncio.TaskGroup() as group:
            copying = group.create_task(store.backup(target))
            step = 0
            while not copying.done():
                await store.commit(line(f"meanwhile-{step}"))
                step += 1
        everything = kept(path)
    copied = kept(target)
    assert 2000 <= len(copied) <= len(everything) == 2000 + step
    assert copied == everything[: len(copied)]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    async with opened(target) as store:
        await store.commit(line("goes on"))
    assert kept(target) == [*copied, "goes on"]
    assert names_in(tmp_path) == ["copy.db", "store.db"]


@pytest.mark.parametrize(("target", "words"), [("store.db", "exists already"), ("absent/copy.db", "No such file")])
async def test_a_copy_never_replaces_anything(tmp_path: Path, target: str, words: str) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.commit(line("a"))
        with pytest.raises(StoreError, match=f"cannot back up to .*{words}"):
            await store.backup(tmp_path / target)
        assert names_in(tmp_path) == ["store.db", "store.db-shm", "store.db-wal"]
    assert kept(path) == ["a"]
