"""Files in folders of others: no link and no swap makes a privileged program change, give away or open something else.

`Swapper` takes the place of `os` in `schemas.safe_files`: it swaps a part of the path before the n-th call for every n,
so each moment of a race is met without luck.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from controller.adapters.files import save_file, write_file
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.restore import back_up_file, restore_file
from controller.adapters.sqlite.store import open_store
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.cli.config_files import copy_starter
from controller.ports.errors import StoreError
from controller.ports.updates import UpdatesError
from device_agent.actions.base import ActionError
from device_agent.actions.key import RestrictKey
from device_agent.collectors.crypto.crypto_files import files_below
from device_agent.host.files import read_tail, read_text, write_whole
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from schemas import safe_files as files
from schemas.safe_files import NotRegularError, UnsafePathError, open_for_reading, open_own, opened_folder
from tests.support.root_folder import put

KEY: Final = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"
SECRET: Final = b"the new content"
NOBODY: Final = 65534
MAX_STEPS: Final = 60
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's folder")


class Swapper:
    """Stands for `os`; calls `swap` before the call number `at`."""

    def __init__(self, at: int, swap: Callable[[], None]) -> None:
        self._at = at
        self._swap = swap
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real) or name in {"fspath", "fdopen"}:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._swap()
            return real(*args, **kwargs)

        return call


class SharedFolder:
    """`home/a/b/file`, which an attacker owns, and the victim's files and folder."""

    def __init__(self, base: Path, content: str) -> None:
        self.home = base / "home"
        self.file = put(self.home, "a/b/file", content, 0o666)
        for path in (self.home / "a", self.home / "a/b"):
            path.chmod(0o6777)
        self.victims = base / "victims"
        put(self.victims, "b/file", content, 0o644)
        put(self.victims, "file", content, 0o644)
        put(self.victims, "program", "program", 0o755)
        (self.victims / "b").chmod(0o755)
        self.victims.chmod(0o755)
        if os.geteuid() == 0:
            for path in (self.home, self.home / "a", self.home / "a/b", self.file):
                os.chown(path, NOBODY, NOBODY)
        self.before = self.state()

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """Mode, owner and content of everything of the victim's."""
        paths = [self.victims, *sorted(self.victims.rglob("*"))]
        return {
            str(path.relative_to(self.victims)): (
                *(path.lstat().st_mode, path.lstat().st_uid),
                path.read_bytes() if path.is_file() else b"",
            )
            for path in paths
        }

    def link(self, part: Path, target: Path) -> None:
        """Puts a link of the attacker's in the place of a part of the path."""
        part.rename(part.with_name(f"{part.name}.kept"))
        part.symlink_to(target)
        if os.geteuid() == 0:
            os.chown(part, NOBODY, NOBODY, follow_symlinks=False)

    def hard_link(self) -> None:
        self.file.unlink(missing_ok=True)
        os.link(self.victims / "file", self.file)

    def assert_untouched(self) -> None:
        assert self.state() == self.before


SWAPS: Final[dict[str, Callable[[SharedFolder], None]]] = {
    "the first folder": lambda shared: shared.link(shared.home / "a", shared.victims),
    "the folder": lambda shared: shared.link(shared.home / "a/b", shared.victims),
    "the folder, by a program": lambda shared: shared.link(shared.home / "a/b", shared.victims / "program"),
    "the file": lambda shared: shared.link(shared.file, shared.victims / "file"),
    "the file, by another name of the victim's": SharedFolder.hard_link,
}


def _restrict(shared: SharedFolder) -> None:
    action = RestrictKey(System())
    action.apply({"path": str(shared.file), "own": True}, {})


def _undo(shared: SharedFolder) -> None:
    before = {"mode": "6755", "owner": f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.getuid()}:{os.getgid()}"}
    RestrictKey(System()).undo({"path": str(shared.file)}, {**before, "folder": "6777"})


def _write_whole(shared: SharedFolder) -> None:
    write_whole(shared.file, shared.file.with_name(".file.new"), SECRET, 0o6755)


def _write_file(shared: SharedFolder) -> None:
    write_file(shared.file, SECRET, 0o6755, replace=True)


def _create(shared: SharedFolder) -> None:
    shared.file.unlink(missing_ok=True)
    write_file(shared.file, SECRET, 0o6755, replace=False)


def _open_own(shared: SharedFolder) -> None:
    with opened_folder(shared.file.parent) as folder:
        descriptor = open_own(folder, shared.file.name, 0o666)
        if os.geteuid() == 0:
            os.fchown(descriptor, NOBODY, NOBODY)
        os.write(descriptor, SECRET)
        os.close(descriptor)


WORK: Final = (_restrict, _undo, _write_whole, _write_file, _create, _open_own)


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("work", WORK)
def test_no_swap_at_any_step_reaches_the_victim(
    work: Callable[[SharedFolder], None], swap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, MAX_STEPS):
        shared = SharedFolder(tmp_path / str(step), KEY)
        swapper = Swapper(step, lambda shared=shared: SWAPS[swap](shared))  # type: ignore[misc]
        monkeypatch.setattr(files, "os", swapper)
        try:
            work(shared)
        except (OSError, ActionError):
            pass
        finally:
            monkeypatch.setattr(files, "os", os)
        shared.assert_untouched()
        if swapper.calls < step:
            assert step > 5, "the steps were not seen"
            return
    raise AssertionError("more steps than expected")


@pytest.mark.parametrize("work", WORK)
def test_without_a_swap_the_work_is_done(work: Callable[[SharedFolder], None], tmp_path: Path) -> None:
    """And set-uid, set-gid and sticky bits are left out."""
    if work is _restrict and os.geteuid() != 0:
        return  # the owner is root's to change
    shared = SharedFolder(tmp_path, KEY)
    work(shared)
    assert shared.file.stat().st_mode & 0o7000 == 0
    assert shared.file.read_bytes().startswith(SECRET) or work in {_restrict, _undo}
    assert [path.name for path in shared.file.parent.iterdir()] == ["file"]
    shared.assert_untouched()


@needs_root
def test_what_lies_under_the_temporary_name_is_neither_followed_nor_used(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path, KEY)
    made_before = shared.file.with_name(".key.new")
    made_before.touch()
    os.chown(made_before, NOBODY, NOBODY)
    shared.file.with_name(".ca.new").symlink_to(shared.victims / "file")
    os.link(shared.victims / "program", shared.file.with_name(".pem.new"))
    for name in ("key", "ca", "pem"):
        write_whole(shared.file.with_name(name), shared.file.with_name(f".{name}.new"), SECRET)
        status = shared.file.with_name(name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    shared.assert_untouched()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(_file: Any) -> None:
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        save_file(tmp_path / "x", fail, 0o600, replace=True)
    assert list(tmp_path.iterdir()) == []


# Links that belong to root or to this user are part of how systems are set up.


def test_links_of_this_user_are_followed_for_writing_and_refused_where_none_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("link", "absolute", "real/../link"):
        write_file(tmp_path / name / "x", SECRET, 0o600, replace=True)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["x"]
    with pytest.raises(UnsafePathError, match="link is a link"), opened_folder(tmp_path / "link", links=False):
        pass
    for bad in ("circle", "none", "real/x"):
        with pytest.raises(OSError, match=bad), opened_folder(tmp_path / bad):
            pass


# Reading


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A folder as a mounted secret, with links as distributions make them, and what must not be opened."""
    put(tmp_path, "data-1/tls.key", KEY)
    (tmp_path / "..data").symlink_to("data-1")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    (tmp_path / "masked.conf").symlink_to("/dev/null")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    return tmp_path


def test_files_are_read_through_links(readable: Path) -> None:
    assert read_text(readable / "tls.key") == read_tail(readable / "tls.key", 1000) == KEY
    assert {file.path.name for file in files_below(System(), [str(readable)], GapRecorder())} == {"tls.key"}


@pytest.mark.parametrize("name", ["masked.conf", "device", "pipe", "to-pipe", ".", "data-1"])
def test_nothing_but_files_is_opened(readable: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at a device with `O_PATH` does not call its driver: opening a watchdog starts it."""
    opened: list[int] = []

    class Watched(Swapper):
        def open(self, path: Path, flags: int, *args: Any, **kwargs: Any) -> int:
            opened.append(flags)
            return os.open(path, flags, *args, **kwargs)

    monkeypatch.setattr(files, "os", Watched(0, lambda: None))
    assert read_text(readable / name) == read_tail(readable / name, 10) == ""
    with pytest.raises(NotRegularError):
        open_for_reading(readable / name)
    assert opened
    assert all(flags & os.O_PATH for flags in opened)


def test_a_file_that_becomes_a_device_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, MAX_STEPS):
        path = put(tmp_path, str(step), "content")

        def swap(path: Path = path) -> None:
            path.unlink()
            path.symlink_to("/dev/zero")

        swapper = Swapper(step, swap)
        monkeypatch.setattr(files, "os", swapper)
        assert read_text(path, 100) in {"", "content"}
        monkeypatch.setattr(files, "os", os)
        if swapper.calls < step:
            return
    raise AssertionError("more steps than expected")


# Root commands in the folder of the service


def store_at(path: Path) -> None:
    async def make() -> None:
        await (await open_store(path, now=lambda: 1.0, log=lambda *_: None)).close()

    asyncio.run(make())


NAMES: Final = ("", ".lock", ".restored", ".restored.part", "-wal", "-shm")


@needs_root
@pytest.mark.parametrize("kind", ["a file", "an empty file", "nothing"])
@pytest.mark.parametrize("name", NAMES)
def test_restore_by_root_touches_nothing_through_links(tmp_path: Path, name: str, kind: str) -> None:
    store_at(tmp_path / "cordon.db")
    back_up_file(tmp_path / "cordon.db", tmp_path / "copy.db")
    with TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        home, victim = Path(base) / "home", Path(base) / "root-only"
        home.mkdir()
        if kind != "nothing":
            victim.touch(0o600)
            victim.write_text("root only" if kind == "a file" else "")
        link = home / f"cordon.db{name}"
        link.symlink_to(victim)
        os.chown(home, NOBODY, NOBODY)
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        before = victim.stat() if kind != "nothing" else None
        with suppress(StoreError):
            restore_file(tmp_path / "copy.db", home / "cordon.db", 1_800_000_000.0)
        assert os.geteuid() == 0
        assert sorted(path.name for path in Path(base).iterdir()) == ["home", *(["root-only"] if before else [])]
        if before is not None:
            after = victim.stat()
            assert (after.st_uid, after.st_mode, after.st_size, after.st_mtime_ns) == (
                *(before.st_uid, before.st_mode, before.st_size, before.st_mtime_ns),
            )
        assert {path.lstat().st_uid for path in home.iterdir()} <= {NOBODY}


@needs_root
@pytest.mark.parametrize("work", ["restore", "backup"])
def test_root_follows_no_link_of_others_to_a_folder(tmp_path: Path, work: str) -> None:
    store_at(tmp_path / "cordon.db")
    back_up_file(tmp_path / "cordon.db", tmp_path / "copy.db")
    with TemporaryDirectory() as base:
        roots, data = Path(base) / "root-only", Path(base) / "data"
        put(roots, "cordon.db", "root only")
        data.symlink_to(roots)
        os.chown(data, NOBODY, NOBODY, follow_symlinks=False)
        works: dict[str, Callable[[], object]] = {
            "restore": lambda: restore_file(tmp_path / "copy.db", data / "cordon.db", 1_800_000_000.0),
            "backup": lambda: back_up_file(tmp_path / "cordon.db", data / "new.db"),
        }
        with pytest.raises(StoreError, match="link"):
            works[work]()
        assert [(path.name, path.read_text()) for path in roots.iterdir()] == [("cordon.db", "root only")]


@needs_root
def test_a_backup_by_root_writes_as_the_owner_of_its_folder(tmp_path: Path) -> None:
    store_at(tmp_path / "cordon.db")
    with TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        home, victim = Path(base) / "home", Path(base) / "root-only"
        home.mkdir()
        victim.touch(0o600)
        os.chown(home, NOBODY, NOBODY)
        back_up_file(tmp_path / "cordon.db", home / "copy.db")
        assert (home / "copy.db").stat().st_uid == NOBODY
        (home / "other.db.part").symlink_to(victim)
        with pytest.raises(StoreError):
            back_up_file(tmp_path / "cordon.db", home / "other.db")
        assert victim.stat().st_size == 0


@pytest.mark.parametrize("kind", ["a link", "another name", "a pipe"])
def test_the_lock_is_a_file_of_its_own(tmp_path: Path, kind: str) -> None:
    victim = put(tmp_path, "victim", "x", 0o600)
    lock = tmp_path / "cordon.db.lock"
    if kind == "a pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(victim) if kind == "a link" else os.link(victim, lock)
    with pytest.raises(StoreError, match="cannot lock"), hold_store(tmp_path / "cordon.db"):
        pass


@pytest.mark.parametrize("kind", ["a link", "another name"])
def test_the_lock_of_the_update_repository_is_a_file_of_its_own(tmp_path: Path, kind: str) -> None:
    folder = RepositoryFolder(tmp_path / "updates")
    folder.make()
    victim, lock = put(tmp_path, "victim", "content", 0o600), folder.base / "lock"
    lock.symlink_to(victim) if kind == "a link" else os.link(victim, lock)
    with pytest.raises(UpdatesError, match="cannot be written"), folder.locked():
        pass
    assert victim.read_text() == "content"


def test_files_that_init_copies_are_not_writable_for_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        (made,) = copy_starter([tmp_path / "policies"])
    finally:
        os.umask(old)
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o750
