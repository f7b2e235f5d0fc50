"""How much the store takes: `python -m tests.bench.store_rate FOLDER [--devices N]`; nothing is asserted.

With `--store postgresql://...` an empty database in place of a file in the folder.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.store import open_store as open_postgres
from controller.adapters.sql.store import SqlStore
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device, RuleState
from controller.domain.effects import AuditEntry
from controller.domain.policy.findings import RuleResult
from controller.ports.store import StoredReport, StoreWrites
from tests.support.fleet_devices import stored_devices

BATCH = 500  # rows of each commit
SECTIONS = json.dumps(
    {"packages": [{"name": f"package-{number}", "version": "1.2.3-4"} for number in range(80)]}
).encode()


def device(number: int, step: int) -> Device:
    """Every fifth fails three rules."""
    failing = 3 if (number + step) % 5 == 0 else 0
    return Device(
        f"device-{number:06d}",
        first_seen=1.7e9,
        last_seen=1.7e9 + step,
        device_class="gateway",
        tags=("site-a", "outdoor"),
        online=True,
        boot_id="0b6a2c1e",
        agent="cordon-agent/0.1",
        report_seq=step,
        digest="a" * 64,
        reported_at=1.7e9 + step,
        judged_by="b" * 16,
        satisfied=40,
        rules={
            f"starter/rule-{rule}": RuleState(RuleResult.FAIL, 1.7e9 + rule, 3, "telnet.socket is enabled", 1, 1.7e9)
            for rule in range(failing)
        },
    )


def changed(devices: tuple[Device, ...], *, sections: bool) -> StoreWrites:
    """Devices with a line of the record each, and their reports."""
    detail: dict[str, object] = {"passed": 40, "failed": 1}
    return StoreWrites(
        devices=devices,
        reports=tuple(StoredReport(one, SECTIONS) for one in devices) if sections else (),
        audit=tuple(
            (one.last_seen, AuditEntry(AuditKind.REPORT_POSTURE_CHANGED, one.device_id, "cordon", "", detail))
            for one in devices
        ),
    )


async def rate(store: SqlStore, name: str, batches: list[StoreWrites], at_once: int) -> None:
    """Commit the batches, `at_once` under way, and say how many rows a second that were."""
    waiting = iter(batches)
    begun, used = time.perf_counter(), time.process_time()

    async def caller() -> None:
        for writes in waiting:
            await store.commit(writes)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    took = time.perf_counter() - begun
    cpu = (time.process_time() - used) / took
    print(f"{name}, {at_once} at once: {len(batches) * BATCH / took:,.0f}/s ({cpu:.0%} of a core)")


async def single(store: SqlStore, count: int) -> None:
    """One device for each commit, from 1,000 callers."""
    waits: list[float] = []

    async def caller(number: int) -> None:
        for step in range(5):
            begun = time.perf_counter()
            await store.commit(StoreWrites(devices=(device(number % count, step),)))
            waits.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(caller(number))
    took = time.perf_counter() - begun
    waits.sort()
    half, most = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    print(f"one device a commit, 1,000 callers: {len(waits) / took:,.0f}/s, p50 {half:.3f} s, p99 {most:.3f} s")


async def measure(path: Path, count: int, url: str) -> None:
    """Fill, change, touch, load, copy."""
    print(f"load average {os.getloadavg()[0]:.1f}")
    store: SqlStore
    if url:
        address = PostgresAddress.parse(url)
        store = await open_postgres(address, name="bench", now=time.time, log=_say)
    else:
        store = await open_store(path, now=time.time, log=_say)
    everyone = [device(number, 0) for number in range(count)]
    fill = [StoreWrites(devices=tuple(everyone[start : start + BATCH])) for start in range(0, count, BATCH)]
    await rate(store, "new devices in order", fill, 2)
    draw = random.Random(1)

    def batches(number: int, make: Callable[[int], StoreWrites]) -> list[StoreWrites]:
        return [make(step) for step in range(1, number + 1)]

    def some(step: int) -> tuple[Device, ...]:
        return tuple(device(draw.randrange(count), step) for _ in range(BATCH))

    for at_once in (1, 2):
        reported = batches(60, lambda step: changed(some(step), sections=True))
        await rate(store, f"device + report of {len(SECTIONS)} bytes + line", reported, at_once)
        judged = batches(60, lambda step: changed(some(step), sections=False))
        await rate(store, "device + line", judged, at_once)
        seen = batches(200, lambda step: StoreWrites(seen=some(step)))
        await rate(store, "seen", seen, at_once)
    print(await store.counts())
    await single(store, count)
    begun = time.perf_counter()
    found = await stored_devices(store)
    print(f"load of {len(found):,} devices: {time.perf_counter() - begun:.2f} s")
    if isinstance(store, SqliteStore):
        begun = time.perf_counter()
        await store.backup(path.with_name("copy.db"))
        print(f"copy: {time.perf_counter() - begun:.2f} s")
    await store.close()
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB")


def _say(event: str, values: Mapping[str, object]) -> None:
    print(event, dict(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder on the disk to measure")
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--store", default="", help="URL of an empty PostgreSQL database")
    given = parser.parse_args()
    if any(given.folder.iterdir()):
        parser.error(f"{given.folder} is not empty")
    uvloop.run(measure(given.folder / "store.db", given.devices, given.store))


if __name__ == "__main__":
    main()
