"""The measured side of the ingest benchmark: a child that drains, counts and tells. Commands come by standard input."""

import asyncio
import contextlib
import random
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from controller.adapters.mqtt.messages import PahoMessages
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.policies.loader import load_policies
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import SystemClock, UlidGenerator
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.packs import pack_path
from controller.ports.errors import NoSubscriberError
from controller.ports.messages import IncomingMessage
from controller.service.fleet_state import FleetState
from controller.service.ingest.ingest import Ingest
from controller.service.maintenance import tune_gc
from controller.service.unit_of_work import UnitOfWork
from schemas.topics import UpChannel, up
from tests.bench.fleet import Reports, device_id
from tests.bench.link_rate import Harness, drain_bare
from tests.support.fleet_devices import devices_of
from tests.support.knowledge import shipped

RECEIVE_MAXIMUM: Final = 1000
BATCH: Final = 500
LOOK: Final = 0.002  # seconds between two looks whether all is done
_EXPECTED: Final = {"received", "confirmed", "reports", "heartbeats"}
GROWTH_REPORTS: Final = 20_000


def _quiet(_event: str, _fields: Mapping[str, object]) -> None:
    pass


class _NoEffects:
    """A healthy fleet asks for nothing."""

    def on_commit(self, batch: UnitOfWork) -> None:
        assert not batch.effects


async def _fleet(path: Path) -> tuple[SqliteStore, FleetState]:
    clock = SystemClock()
    language = CelEnvironment(TYPES)
    policies = load_policies([pack_path("starter")], language).with_knowledge(shipped())
    store = await open_store(path, now=clock.now, log=_quiet)
    fleet = FleetState(store, policies, language, clock, UlidGenerator(), (_NoEffects(),), queries=store.fleet_queries)
    await fleet.start()
    tune_gc()
    return store, fleet


class _Bridge:
    """One ingest over the connections of all phases, as one controller has it over its reconnects."""

    link: PahoMessages

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        return await self.link.receive(most)

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        self.link.acknowledge(messages)

    def publish_nowait(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        return self.link.publish_nowait(topic, payload, expiry_seconds=expiry_seconds)


async def _drain(port: int, bridge: _Bridge, ingest: Ingest, messages: int) -> float:
    """Messages a second from the first message to the last acknowledgement, receipts confirmed."""
    options = MqttOptions(
        servers=(f"mqtt://127.0.0.1:{port}",),
        client_id="bench-controller",
        protocol="5",
        receive_maximum=RECEIVE_MAXIMUM,
        max_queued=100_000,
    )
    link = bridge.link = PahoMessages(options, rand=random.random, log=_quiet)
    ingest.counts.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        first = await link.receive(512)
        start = time.perf_counter()
        await ingest.process_batch(first)
        working = group.create_task(ingest.run())
        while ingest.counts["confirmed"] < messages:
            await asyncio.sleep(LOOK)
        # Packets of one connection are handled in order: once this is confirmed, every receipt before it has arrived.
        with contextlib.suppress(NoSubscriberError):
            await link.publish_confirmed("bench/end", b"")
        seconds = time.perf_counter() - start
        working.cancel()
        running.cancel()
    refused = {key: count for key, count in ingest.counts.items() if key not in _EXPECTED}
    assert not refused, refused
    return messages / seconds


class _Nobody:
    """The link's place where no broker is measured."""

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        pass

    def publish_nowait(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        return bool(topic and payload and expiry_seconds)


async def _growth(fleet: FleetState, devices: int) -> float:
    """Microseconds of CPU for a changed report; the fleet is there after the first pass."""
    nobody: Any = _Nobody()
    ingest = Ingest(nobody, fleet, _quiet)
    kernels = (Reports(41), Reports(42))
    if not devices_of(fleet):
        for start in range(0, devices, BATCH):
            numbers = range(start, min(devices, start + BATCH))
            await ingest.process_batch([_message(kernels[1].full(number, 1), number) for number in numbers])
    sequence = 1 + max(device.report_seq for device in devices_of(fleet).values())
    batches = []
    for start in range(0, GROWTH_REPORTS, BATCH):
        batch = []
        for number in range(start, start + BATCH):
            seq = sequence + number // devices
            batch.append(_message(kernels[seq % 2].full(number * 7919 % devices, seq), number * 7919 % devices))
        batches.append(batch)
    before = time.process_time()
    for batch in batches:
        await ingest.process_batch(batch)
    return (time.process_time() - before) / GROWTH_REPORTS * 1e6


def _message(payload: bytes, device: int) -> IncomingMessage:
    return IncomingMessage(up(device_id(device), UpChannel.POSTURE), payload, 1, False, False, device, time.monotonic())


async def _lines(handle: Any) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        print(await handle(word, rest), flush=True)


async def _serve(argv: list[str]) -> None:
    kind = argv[0]
    if kind == "bare":
        port = int(argv[1])

        async def bare(_word: str, rest: str) -> str:
            messages = int(rest)
            start = time.perf_counter()
            await drain_bare(Harness(port, None), messages)
            return f"{messages / (time.perf_counter() - start):.1f}"

        await _lines(bare)
        return
    store, fleet = await _fleet(Path(argv[2]))
    bridge: Any = _Bridge()
    ingest = Ingest(bridge, fleet, _quiet)

    async def cordon(word: str, rest: str) -> str:
        if word == "rss":
            return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}"
        if word == "run":
            return f"{await _growth(fleet, int(argv[1])):.2f}"
        return f"{await _drain(int(argv[1]), bridge, ingest, int(rest)):.1f}"

    await _lines(cordon)
    await store.close()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1:]))
