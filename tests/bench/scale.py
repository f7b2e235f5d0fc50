"""What a contact and a changed report cost the store as the fleet grows: `make bench-scale`.

For each size of the fleet and each engine: rows a second, processor time of this process and of all processes of the
server per row, bytes written to the log, and how long a commit waits. Devices are drawn at random, every row names the
version that it was decided on, two batches are under way. Nothing is asserted.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from controller.adapters.postgres.store import open_store as open_postgres
from controller.adapters.sql.store import SqlStore
from controller.adapters.sqlite.store import open_store as open_sqlite
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.ports.store import StoredReport, StoreWrites
from tests.bench.store_rate import SECTIONS, device
from tests.support.postgres import DEBIAN, WHEEL, PostgresServer, address_of, installed, postgres_server

BATCH = 500  # rows of a commit
FILL = 2000
AT_ONCE = 2
SETTINGS = {
    "shared_buffers": "'2GB'",
    "max_wal_size": "'8GB'",
    "checkpoint_timeout": "'30min'",
}
COMPRESSION = {DEBIAN: "lz4", WHEEL: "pglz"}  # the wheel is built without lz4


@dataclass(frozen=True)
class Cost:
    """Per row, in microseconds and bytes; `rate`: rows a second; `wait`: median seconds of a commit."""

    rate: float
    controller: float
    server: float
    log_bytes: float
    wait: float

    @property
    def cpu(self) -> float:
        return self.controller + self.server

    def __str__(self) -> str:
        return (
            f"{self.rate:>9,.0f}/s  cpu {self.controller:5.1f} + {self.server:5.1f} us"
            f"  log {self.log_bytes:7,.0f} B  commit {self.wait * 1000:5.1f} ms"
        )


@dataclass(frozen=True)
class Engine:
    """An open store; what its server has used so far, in seconds and bytes of the write-ahead log; and how to have the
    server do at once what it would do after many new rows by itself.
    """

    name: str
    store: SqlStore
    used: Callable[[], tuple[float, int]]
    settle: Callable[[], object]


class Fleet:
    """Devices by number, with the version of each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._draw = random.Random(count)
        self._next = 1
        self._version = [0] * count

    def new(self) -> Iterator[StoreWrites]:
        for start in range(0, self._count, FILL):
            numbers = range(start, min(start + FILL, self._count))
            yield StoreWrites(
                devices=tuple(device(number, 0) for number in numbers),
                versions={f"device-{number:06d}": self._pair(number, is_decision=True) for number in numbers},
            )

    def contacts(self, batches: int) -> list[StoreWrites]:
        return [self._batch(self._contact, is_decision=False) for _ in range(batches)]

    def reports(self, batches: int) -> list[StoreWrites]:
        """Changed ones that change no decision."""
        return [self._batch(self._report, is_decision=True) for _ in range(batches)]

    def decisions(self, batches: int) -> list[StoreWrites]:
        """Changed reports by which the device's own row and the record change."""
        return [self._batch(self._decision, is_decision=True) for _ in range(batches)]

    def _batch(
        self, make: Callable[[tuple[Device, ...], dict[str, tuple[int, int]]], StoreWrites], *, is_decision: bool
    ) -> StoreWrites:
        numbers = self._draw.sample(range(self._count), BATCH)
        versions = {f"device-{number:06d}": self._pair(number, is_decision=is_decision) for number in numbers}
        return make(tuple(device(number, self._next) for number in numbers), versions)

    def _pair(self, number: int, *, is_decision: bool) -> tuple[int, int]:
        before = self._version[number]
        if is_decision:
            self._next += 1
            self._version[number] = self._next
        return before, self._version[number]

    @staticmethod
    def _contact(devices: tuple[Device, ...], versions: dict[str, tuple[int, int]]) -> StoreWrites:
        return StoreWrites(seen=devices, versions=versions)

    @staticmethod
    def _report(devices: tuple[Device, ...], versions: dict[str, tuple[int, int]]) -> StoreWrites:
        return StoreWrites(reports=tuple(StoredReport(one, SECTIONS) for one in devices), versions=versions)

    @staticmethod
    def _decision(devices: tuple[Device, ...], versions: dict[str, tuple[int, int]]) -> StoreWrites:
        detail: dict[str, object] = {"passed": 40, "failed": 1}
        return StoreWrites(
            devices=devices,
            reports=tuple(StoredReport(one, SECTIONS) for one in devices),
            audit=tuple(
                (one.last_seen, AuditEntry(AuditKind.REPORT_POSTURE_CHANGED, one.device_id, "cordon", "", detail))
                for one in devices
            ),
            versions=versions,
        )


async def cost_of(engine: Engine, batches: Iterable[StoreWrites], rows: int) -> Cost:
    waits: list[float] = []
    waiting = iter(batches)
    (server, log), used, begun = engine.used(), time.process_time(), time.perf_counter()

    async def caller() -> None:
        for writes in waiting:
            asked = time.perf_counter()
            await engine.store.commit(writes)
            waits.append(time.perf_counter() - asked)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(caller())
    took, controller = time.perf_counter() - begun, time.process_time() - used
    server_after, log_after = engine.used()
    micro = 1e6 / rows
    waits.sort()
    return Cost(
        rows / took,
        controller * micro,
        (server_after - server) * micro,
        (log_after - log) / rows,
        waits[len(waits) // 2],
    )


async def measure(engine: Engine, count: int, batches: int) -> dict[str, Cost]:
    """New devices, then contacts, changed reports, decisions; each once before it is measured."""
    fleet = Fleet(count)
    found = {"new device": await cost_of(engine, fleet.new(), count)}
    await asyncio.to_thread(engine.settle)
    for name, make in (
        ("contact", fleet.contacts),
        ("changed report", fleet.reports),
        ("report with decision", fleet.decisions),
    ):
        await cost_of(engine, make(batches // 4), batches // 4 * BATCH)
        found[name] = await cost_of(engine, make(batches), batches * BATCH)
    for name, one in found.items():
        print(f"{engine.name:>10} {count:>9,} devices  {name:>20} {one}", flush=True)
    return found


@asynccontextmanager
async def sqlite_engine(folder: Path) -> AsyncIterator[Engine]:
    path = folder / "store.db"
    store = await open_sqlite(path, now=time.time, log=_say)
    try:
        yield Engine("SQLite", store, lambda: (0.0, 0), lambda: None)
    finally:
        await store.close()


@asynccontextmanager
async def postgres_engine(folder: Path, server: PostgresServer) -> AsyncIterator[Engine]:
    del folder
    database = server.new_database()
    address = address_of(server.url(database, socket_file=True))
    store = await open_postgres(address, name="bench", now=time.time, log=_say)
    start = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"

    def used() -> tuple[float, int]:
        return server.cpu_seconds, int(server.query(database, start)[0][0])

    def settle() -> None:
        for statement in ("VACUUM (ANALYZE)", "CHECKPOINT"):
            server.query(database, statement)

    try:
        yield Engine("PostgreSQL", store, used, settle)
    finally:
        await store.close()


@contextmanager
def big_server(folder: Path) -> Iterator[PostgresServer | None]:
    kind = next((one for one in COMPRESSION if installed(one) is not None), None)
    if kind is None:
        print("no PostgreSQL is installed")
        yield None
        return
    with postgres_server(kind, folder, **SETTINGS, wal_compression=COMPRESSION[kind]) as server:
        print(server.query("postgres", "SELECT version()")[0][0])
        yield server


def flush_seconds(folder: Path) -> float:
    """The median time of a flush of one page to the disk."""
    times = []
    with (folder / "flush").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


async def run(folder: Path, sizes: list[int], batches: int, only: str) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}, a flush takes {flush_seconds(folder) * 1000:.2f} ms")
    found: dict[str, list[dict[str, Cost]]] = {}
    with big_server(folder) as server:
        for count in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                engines = [] if only == "postgres" else [sqlite_engine(Path(place))]
                engines += [] if only == "sqlite" or server is None else [postgres_engine(Path(place), server)]
                for opened in engines:
                    async with opened as engine:
                        found.setdefault(engine.name, []).append(await measure(engine, count, batches))
    for name, costs in found.items():
        ratios = [f"{what} {costs[-1][what].cpu / costs[0][what].cpu:.2f}" for what in costs[0]]
        print(f"{name}: processor time, {sizes[-1]:,} devices over {sizes[0]:,}: {', '.join(ratios)}")
    print(f"load average {os.getloadavg()[0]:.1f}, a flush takes {flush_seconds(folder) * 1000:.2f} ms")


def _say(event: str, values: Mapping[str, object]) -> None:
    print(event, dict(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store-in", type=Path, default=None, help="a folder on the disk to measure, 8 GB of room")
    parser.add_argument("--sizes", default="1000,1000000", help="devices, smallest first")
    parser.add_argument("--batches", type=int, default=200, help=f"commits of {BATCH} rows of each kind")
    parser.add_argument("--only", choices=("sqlite", "postgres"), default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.store_in) as folder:
        Path(folder).chmod(0o755)  # a server does not run as root
        uvloop.run(run(Path(folder), [int(one) for one in given.sizes.split(",")], given.batches, given.only))


if __name__ == "__main__":
    main()
