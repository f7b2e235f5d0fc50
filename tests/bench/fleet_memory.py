"""Memory of a controller whose fleet is larger than what it holds, and what a heartbeat costs it (minutes).

python -m tests.bench.fleet_memory --devices 1000000

The store is filled in a process of its own. Each device sends a heartbeat, in random order: most are not in memory.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.domain.device import Device, RuleState
from controller.domain.policy.findings import RuleResult
from controller.ports.fleet_queries import DeviceFilter, DeviceQuery
from controller.ports.messages import IncomingMessage
from controller.ports.store import StoreWrites
from controller.service.device_cache import MAX_CACHED
from controller.service.ingest.ingest import MAX_BATCH
from schemas.topics import UpChannel, up
from tests.support.clocks import START, ManualClock
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.memory import resident_bytes
from tests.support.reports import heartbeat

ROWS: Final = 10_000  # in one commit
FAILING: Final = 5  # each fifth device fails three rules
_MIB: Final = 1024 * 1024


def device_id(number: int) -> str:
    return f"edge-{number:07d}"


def device(number: int, version: str) -> Device:
    """As a device is after its first full report."""
    rules = {}
    if number % FAILING == 0:
        state = RuleState(RuleResult.FAIL, START, 1, "port 23 is open on 0.0.0.0")
        rules = {f"baseline/rule-{one}": state for one in range(3)}
    return Device(
        device_id(number), START, START, device_class=f"class-{number % 7}", tags=("site-12", "rack-4"), online=True,
        boot_id=f"5f0c5d1e-7a53-4a3c-9f57-{number:012d}", agent="1.0.0", report_seq=1, digest=f"sha256:{number:064x}",
        reported_at=START, accepted=1, judged_by=version, satisfied=20, rules=rules,
    )  # fmt: skip


async def fill(path: Path, devices: int) -> None:
    async with open_harness(path) as harness:
        version, store = harness.fleet.policies.version, harness.store
        for first in range(0, devices, ROWS):
            some = range(first, min(devices, first + ROWS))
            await store.commit(StoreWrites(devices=tuple(device(number, version) for number in some)))


def message(number: int, seq: int, at: float) -> IncomingMessage:
    payload = heartbeat(device_id(number), seq, f"sha256:{number:064x}")
    return IncomingMessage(up(device_id(number), UpChannel.POSTURE), payload, 1, False, False, 1, at)


async def beats(harness: ControllerHarness, numbers: Sequence[int], seq: int) -> float:
    """Microseconds of CPU for a heartbeat."""
    before = time.process_time()
    for first in range(0, len(numbers), MAX_BATCH):
        harness.link.acknowledged.clear()
        harness.link.sent.clear()
        some, at = numbers[first : first + MAX_BATCH], harness.clock.monotonic()
        await harness.ingest.process_batch([message(number, seq, at) for number in some])
    return (time.process_time() - before) / len(numbers) * 1e6


async def measure(path: Path, devices: int) -> dict[str, object]:
    clock = ManualClock()
    began = time.perf_counter()
    async with open_harness(path, clock=clock) as harness:
        started = time.perf_counter() - began
        found: dict[str, object] = {"devices": harness.fleet.size, "start_seconds": round(started, 2)}
        found["mib_at_start"] = round(resident_bytes() / _MIB)
        order = list(range(devices))
        random.Random(7).shuffle(order)
        clock.at += 60.0
        found["heartbeat_us_at_random"] = round(await beats(harness, order, 2), 1)
        found["mib_after_heartbeats"] = round(resident_bytes() / _MIB)
        few = order[-min(devices, MAX_CACHED // 4) :]
        found["heartbeat_us_in_memory"] = round(await beats(harness, few, 3), 1)
        clock.at += 200.0
        await beats(harness, few, 4)
        clock.at += 200.0  # all others are silent for longer than 300 s
        ticks, began = 0, time.perf_counter()
        for _ in range(20):
            await harness.timers.tick()
            ticks += 1
        found["silent_tick_ms"] = round((time.perf_counter() - began) / ticks * 1000, 1)
        page = await harness.fleet.queries.devices(DeviceQuery(DeviceFilter(stale=True), limit=1000))
        found["stale"] = page.total
        await harness.services.broker.access.access.tick()
        found["mib_after_pass_over_all"] = round(resident_bytes() / _MIB)
        found["held_in_memory"] = len(harness.fleet.cache)
        found["mib_at_most"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--part", choices=("fill", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part == "fill":
        asyncio.run(fill(asked.path, asked.devices))
        return
    if asked.part == "measure":
        print(json.dumps(asyncio.run(measure(asked.path, asked.devices)), indent=2))
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in ("fill", "measure"):
            own = [sys.executable, "-m", "tests.bench.fleet_memory", f"--devices={asked.devices}", f"--part={part}"]
            subprocess.run([*own, f"--path={folder}/cordon.db"], check=True)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
