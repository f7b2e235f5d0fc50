"""Shared by tests of the store: opening it, and another process that holds the lock."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, EndIsolation
from controller.ports.store import Store, StoreWrites

NOW = 1_700_000_000.0
# Short waits, and no checkpoint that a test does not ask for.
QUICK = StoreOptions(
    lock_wait_seconds=0.02, retry_floor_seconds=0.01, retry_ceiling_seconds=0.05, close_seconds=0.2, idle_seconds=600.0
)
_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


@dataclass
class Logged:
    """The log of a store."""

    lines: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def __call__(self, event: str, values: Mapping[str, object]) -> None:
        self.lines.append((event, values))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


@asynccontextmanager
async def opened(path: Path, options: StoreOptions = QUICK, log: Logged | None = None) -> AsyncIterator[SqliteStore]:
    store = await open_store(path, now=lambda: NOW, log=log or Logged(), options=options)
    try:
        yield store
    finally:
        await store.close()


def names_in(folder: Path) -> list[str]:
    """The sorted names of the files in a folder."""
    return sorted(found.name for found in folder.iterdir())


def line(name: str) -> StoreWrites:
    """A device, an audit entry and an effect, which have to be stored together."""
    return StoreWrites(
        devices=(Device(name, 1.0, 2.0),),
        audit=((1.0, AuditEntry(AuditKind.DEVICE_ONLINE, name, "test")),),
        effects=(EndIsolation(f"effect-{name}", name, "case"),),
    )


def kept(path: Path) -> list[str]:
    """The devices of the audit entries in order, read directly; device and effect of each `line` have to be there."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [name for (name,) in connection.execute("SELECT device_id FROM audit ORDER BY id")]
        devices = {name for (name,) in connection.execute("SELECT device_id FROM devices")}
        effects = {name for (name,) in connection.execute("SELECT effect_id FROM outbox")}
    finally:
        connection.close()
    assert devices == set(names)
    assert effects == {f"effect-{name}" for name in names}
    return names


@asynccontextmanager
async def lock_held(path: Path) -> AsyncIterator[None]:
    """Another process holds the write lock while the block runs."""
    async with child("-c", _HOLD, str(path)) as process:
        assert await read_line(process) == "held"
        yield
        await tell(process, "")
        assert await process.wait() == 0


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process, killed at the end of the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().rstrip("\n")


async def tell(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n".encode())
    await process.stdin.drain()


async def commit(store: Store, writes: StoreWrites) -> None:
    """Commits; for a task, as the store enqueues when it is called."""
    await store.commit(writes)


async def commit_all(store: SqliteStore, names: Sequence[str]) -> None:
    """One commit for each name, called in order and awaited together."""
    await asyncio.gather(*(store.commit(line(name)) for name in names))
