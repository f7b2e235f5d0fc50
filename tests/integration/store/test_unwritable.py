"""Backup and restore where the file system has no hard links, or cannot be written: that is when a backup is wanted."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.adapters.files import give_name, sync_folder, write_file
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.restore import back_up_file, restore_file
from controller.ports.errors import StoreError
from tests.support.store import commit_all, kept, line, names_in, opened

NOBODY = 65_534  # user id
NO_LINKS = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder below which another user may read."""
    made = Path(tempfile.mkdtemp(prefix="cordon-test-"))
    made.chmod(0o755)
    yield made
    for path, _, _ in os.walk(made):
        Path(path).chmod(0o755)
    shutil.rmtree(made)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nobody can write in `folder` meanwhile; root becomes another user, because it can write everywhere."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


async def store_with(path: Path, *texts: str, has_log: bool = False) -> None:
    """A store of a stopped controller; with `has_log` it was killed before SQLite emptied its log."""
    path.parent.mkdir(exist_ok=True)
    async with opened(path) as store:
        await commit_all(store, list(texts))
        if has_log:
            shutil.copyfile(path, path.with_name("copy"))
            shutil.copyfile(path.with_name(f"{path.name}-wal"), path.with_name("copy-wal"))
    if has_log:
        for end in ("", "-wal"):
            path.with_name(f"copy{end}").replace(path.with_name(f"{path.name}{end}"))


@pytest.mark.parametrize("has_log", [False, True])
async def test_unwritable_store_is_backed_up_and_restored_elsewhere(folder: Path, has_log: bool) -> None:
    path, target = folder / "ro" / "store.db", folder / "out" / "copy.db"
    await store_with(path, "a", "b", has_log=has_log)
    target.parent.mkdir(mode=0o777)
    target.parent.chmod(0o777)
    with unwritable(path.parent):
        before = names_in(path.parent)
        assert back_up_file(path, target) > 0
        assert names_in(path.parent) == before
    assert kept(target) == ["a", "b"]


async def test_backup_on_a_file_system_that_cannot_be_written_is_restored(folder: Path) -> None:
    source, path = folder / "ro" / "store.db", folder / "var" / "store.db"
    await store_with(source, "a")
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with unwritable(source.parent):
        restore_file(source, path, 0.0)
    assert kept(path) == ["a"]


async def test_store_of_a_running_controller_is_not_read_past_its_locks(folder: Path) -> None:
    path, target = folder / "ro" / "store.db", folder / "out" / "copy.db"
    await store_with(path, "a")
    target.parent.mkdir()
    target.parent.chmod(0o777)
    with hold_store(path), unwritable(path.parent), pytest.raises(StoreError, match="cannot"):
        back_up_file(path, target)
    assert names_in(target.parent) == []


@pytest.fixture(params=NO_LINKS)
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links, as each kind of it says so."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
async def test_backup_and_restore_need_no_hard_links(tmp_path: Path) -> None:
    path, target = tmp_path / "store.db", tmp_path / "copy.db"
    await store_with(path, "a")
    back_up_file(path, target)
    async with opened(path) as store:
        await store.commit(line("b"))
    aside = restore_file(target, path, 0.0)
    assert aside is not None
    assert (kept(path), kept(aside), kept(target)) == (["a"], ["a", "b"], ["a"])
    with pytest.raises(StoreError, match="exists already"):
        back_up_file(path, target)


@pytest.mark.usefixtures("no_links")
def test_file_without_links_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"first", 0o600, replace=False)
    with pytest.raises(FileExistsError):
        write_file(path, b"second", 0o600, replace=False)
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["file"]


def test_other_failures_of_a_link_are_told(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(FileNotFoundError):
        give_name(tmp_path / "absent", tmp_path / "new")
    with pytest.raises(FileExistsError):
        give_name(tmp_path / "there", tmp_path / "there")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a link of the kernel
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)
