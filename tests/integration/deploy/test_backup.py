"""Backup, restore, lock and retention: on real files, with `cordon` as a process where a process is meant."""

import asyncio
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.lock import hold_store, lock_path
from controller.adapters.sqlite.restore import back_up_file, restore_file, verify
from controller.adapters.sqlite.store import open_store
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.ports.errors import StoreError
from controller.ports.store import StoreWrites
from controller.service.maintenance import StoreMaintenance
from tests.support.clocks import ManualClock
from tests.support.store import QUICK, Logged, child, kept, line, names_in, opened, read_line, tell

NOW = 1_700_000_000.0
DAY = 86_400.0
_HOLD = """
import sys
from pathlib import Path
from controller.adapters.sqlite.lock import hold_store
with hold_store(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
_CONFIG = """
mqtt.servers = ["mqtt://127.0.0.1:1"]
emqx = { api = ["http://127.0.0.1:1"], key_file = "emqx.key" }
store.path = "cordon.db"
policy.paths = ["policies"]
commands.signing_key = "signing.key"
"""


async def _cordon(*arguments: str) -> tuple[int, str]:
    """Exit status and everything said by one `cordon` process."""
    pipe, out = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    argv = [sys.executable, "-m", "controller.main", *arguments]
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=out)
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_backup_while_a_controller_writes_and_restore_after_it(tmp_path: Path) -> None:
    config, path, target = tmp_path / "cordon.toml", tmp_path / "cordon.db", tmp_path / "copy.db"
    config.write_text(_CONFIG)
    async with opened(path) as store:
        await store.commit(line("before"))
        code, said = await _cordon("backup", str(target), "--config", str(config))
        assert (code, said) == (0, f"{target}: {target.stat().st_size} bytes, verified\n")
        await store.commit(line("after"))
        assert (await _cordon("backup", str(target), "--config", str(config)))[0] == 1  # never over a file
    assert kept(target) == ["before"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    code, said = await _cordon("restore", str(target), "--config", str(config))
    assert code == 0, said
    assert kept(path) == ["before"]
    (aside,) = (tmp_path / name for name in names_in(tmp_path) if name.startswith("cordon.db.before-"))
    assert str(aside) in said
    assert kept(aside) == ["before", "after"]
    assert kept(target) == ["before"]
    async with opened(path) as store:
        await store.commit(line("goes on"))
    assert kept(path) == ["before", "goes on"]


async def test_what_a_killed_controller_left_in_the_log_goes_aside_with_its_store(tmp_path: Path) -> None:
    path, source = tmp_path / "cordon.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await store.commit(line("first"))
        back_up_file(path, source)
        await store.commit(line("second"))
        # What lies on the disk at this moment is what a kill would leave: a log that is not in the store yet.
        left = tmp_path / "left"
        left.mkdir()
        for name in ("cordon.db", "cordon.db-wal"):
            (left / name).write_bytes((tmp_path / name).read_bytes())
    aside = restore_file(source, left / "cordon.db", NOW)
    assert aside == left / "cordon.db.before-20231114T221320Z"
    assert kept(left / "cordon.db") == ["first"]
    assert kept(aside) == ["first", "second"]
    assert lock_path(left / "cordon.db").exists()


async def test_restore_where_nothing_was(tmp_path: Path) -> None:
    path, source, new = tmp_path / "cordon.db", tmp_path / "copy.db", tmp_path / "new.db"
    async with opened(path) as store:
        await store.commit(line("only"))
    back_up_file(path, source)
    assert restore_file(source, new, NOW) is None
    assert kept(new) == ["only"]


async def test_restore_and_a_second_controller_are_refused_while_one_runs(tmp_path: Path) -> None:
    path, source = tmp_path / "cordon.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await store.commit(line("kept"))
    back_up_file(path, source)
    async with child("-c", _HOLD, str(path)) as process:
        assert await read_line(process) == "held"
        before = names_in(tmp_path)
        with pytest.raises(StoreError, match="in use by another `cordon serve`"):
            restore_file(source, path, NOW)
        with pytest.raises(StoreError, match="in use"), hold_store(path):
            raise AssertionError("two processes hold one store")
        assert names_in(tmp_path) == before
        await tell(process, "")
        assert await process.wait() == 0
    with hold_store(path):
        pass  # let go with the process


async def test_a_link_to_the_store_is_the_same_store(tmp_path: Path) -> None:
    async with opened(tmp_path / "cordon.db") as store:
        await store.commit(line("x"))
    (tmp_path / "other.db").symlink_to("cordon.db")
    with hold_store(tmp_path / "cordon.db"), pytest.raises(StoreError, match="in use"):
        hold_store(tmp_path / "other.db").__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_root_restores_belongs_to_the_service(tmp_path: Path) -> None:
    async with opened(tmp_path / "cordon.db") as store:
        await store.commit(line("x"))
    back_up_file(tmp_path / "cordon.db", tmp_path / "copy.db")
    with TemporaryDirectory() as folder:  # its owner cannot enter pytest's own
        home = tmp_path / folder
        os.chown(home, 12345, 12346)
        restore_file(tmp_path / "copy.db", home / "cordon.db", NOW)
        owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in home.iterdir()}
    assert owners == dict.fromkeys(("cordon.db", "cordon.db.lock"), (12345, 12346))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192:12000] = b"\xff" * (12000 - 8192)
    path.write_bytes(bytes(data))


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('cordon', 'm9999_later', 'now')"
    )
    connection.commit()
    connection.close()


def _foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebody_elses (x)")
    connection.close()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _absent(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_cut, "damaged|malformed"),
        (_scribble, "damaged|malformed"),
        (_newer, "newer version of Cordon"),
        (_foreign, "another program"),
        (_empty, "no store of Cordon's"),
        (_absent, "there is no store"),
    ],
)
async def test_a_backup_that_does_not_pass_replaces_nothing(
    tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    path, source = tmp_path / "cordon.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await store.commit(line("mine"))
    back_up_file(path, source)
    harm(source)
    with pytest.raises(StoreError, match=words):
        restore_file(source, path, NOW)
    assert kept(path) == ["mine"]
    assert not [name for name in names_in(tmp_path) if "before" in name or "restored" in name]


async def test_a_damaged_store_yields_no_backup(tmp_path: Path) -> None:
    path, target = tmp_path / "cordon.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await store.commit(StoreWrites(devices=tuple(Device(f"d{n}", 1.0, 2.0) for n in range(200))))
    _cut(path)
    with pytest.raises(StoreError):
        back_up_file(path, target)
    assert not target.exists()
    with pytest.raises(StoreError, match="there is no store"):
        verify(target)


async def test_with_daily_rounds_the_store_stops_growing(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    options = StoreOptions(audit_days=5, command_days=5, idle_seconds=600.0, close_seconds=QUICK.close_seconds)
    store = await open_store(tmp_path / "cordon.db", now=clock.now, log=Logged(), options=options)
    logged = Logged()
    keeping = StoreMaintenance(store, logged)
    sizes, pruned = [], 0
    try:
        for day in range(30):
            entries = [
                AuditEntry(AuditKind.DEVICE_ONLINE, f"device-{n % 50}", "test", detail={"day": day})
                for n in range(1500)
            ]
            await store.commit(StoreWrites(audit=tuple((clock.at, entry) for entry in entries)))
            rows = await keeping.run_once()
            assert rows is not None
            pruned += rows
            counts = await store.counts()
            assert counts["audit"] <= 6 * 1502
            sizes.append(counts["bytes"])
            clock.at += DAY
        oldest = (await store.audit(newest_first=False, limit=1))[0]
    finally:
        await store.close()
    assert oldest.at >= clock.at - DAY - 5 * DAY
    assert pruned == 24 * 1500 + 2 * 18  # a run says in two rows what it took, and they go too in time
    assert (tmp_path / "cordon.db").stat().st_size < 2 * 6 * 1500 * 300  # bytes: pages that became free are used again
    assert logged.lines[-2] == ("store pruned", {"rows": 1502})
    assert logged.events[-1] == "head of the record"


async def test_a_store_that_refuses_is_asked_again_later(tmp_path: Path) -> None:
    logged = Logged()
    store = await open_store(tmp_path / "cordon.db", now=lambda: NOW, log=Logged(), options=QUICK)
    await store.close()
    keeping = StoreMaintenance(store, logged)
    assert await keeping.run_once() is None
    assert logged.events == ["cannot prune the store"]
