"""Deciding goes on while the disk is slow; nobody hears of anything before it is there, and always in order."""

import asyncio
from collections.abc import Awaitable, Sized
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import StoreError
from controller.ports.messages import IncomingMessage
from controller.ports.store import StoreWrites
from controller.service.ingest.ingest import BATCHES_AHEAD, Ingest
from schemas.events import ReceiptVerdict, ReportReceipt, accepted_json
from schemas.posture import digest_of
from tests.support import reports
from tests.support.controller_harness import ControllerHarness, MemoryLink, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.receipts import receipts_sent
from tests.support.reports import delta, full, heartbeat, incoming

OLD, NEW = reports.sections(22), reports.sections(22, 23)


class Feed(MemoryLink):
    """Gives the messages one by one, then nothing more."""

    def feed(self, *payloads: bytes) -> list[IncomingMessage]:
        self.messages = [incoming("edge-1", payload) for payload in payloads]
        self.left = list(self.messages)
        return self.messages

    async def receive(self, most: int) -> list[IncomingMessage]:
        del most
        if not self.left:
            await asyncio.Event().wait()
        return [self.left.pop(0)]


class SlowDisk:
    """Commits as they are asked for, each done when it is told."""

    def __init__(self, harness: ControllerHarness) -> None:
        self._real = harness.store.commit
        self.asked: list[tuple[StoreWrites, asyncio.Future[None]]] = []
        harness.store.commit = self.commit  # type: ignore[method-assign]  # the slow part of a real store

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((writes, told))
        return told

    async def finish(self, number: int) -> None:
        writes, told = self.asked[number]
        await self._real(writes)
        told.set_result(None)


async def _until(done: Sized, count: int) -> None:
    while len(done) < count:
        await asyncio.sleep(0)


async def test_what_is_decided_ahead_is_told_in_order_and_only_once_it_is_on_disk(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        link, disk = Feed(), SlowDisk(harness)
        ahead = BATCHES_AHEAD + 2
        messages = link.feed(*(full("edge-1", number + 1, 22) for number in range(ahead + 2)))
        harness.link.sent = link.sent
        async with asyncio.TaskGroup() as group:
            working = group.create_task(Ingest(link, harness.fleet, lambda *_: None).run())
            await _until(disk.asked, ahead)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(disk.asked) == ahead  # bounded: no further batch is decided
            assert (link.acknowledged, link.sent) == ([], [])
            disk.asked[1][1].set_result(None)  # a later one alone changes nothing
            for _ in range(20):
                await asyncio.sleep(0)
            assert (link.acknowledged, link.sent) == ([], [])
            await disk.finish(0)
            await _until(link.acknowledged, 2)
            assert link.acknowledged == messages[:2]
            assert [one["seq"] for one in receipts_sent(harness, "edge-1")] == [1, 2]
            working.cancel()


async def test_a_delta_on_a_report_that_is_not_on_disk_yet(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        link, disk = Feed(), SlowDisk(harness)
        link.feed(full("edge-1", 1, 22), delta(2, OLD, NEW), heartbeat("edge-1", 3, digest_of(NEW)))
        harness.link.sent = link.sent
        async with asyncio.TaskGroup() as group:
            working = group.create_task(Ingest(link, harness.fleet, lambda *_: None).run())
            await _until(disk.asked, 3)
            for number in range(3):
                await disk.finish(number)
            await _until(link.acknowledged, 3)
            working.cancel()
        assert [one["verdict"] for one in receipts_sent(harness, "edge-1")] == ["accepted", "accepted"]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        stored = await harness.store.report("edge-1")
        assert stored is not None
        assert digest_of(NEW).encode() in stored


async def test_what_cannot_be_kept_ends_the_ingest_without_an_acknowledgement(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        link, disk = Feed(), SlowDisk(harness)
        link.feed(full("edge-1", 1, 22))

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(Ingest(link, harness.fleet, lambda *_: None).run())
                await _until(disk.asked, 1)
                disk.asked[0][1].set_exception(StoreError("cannot be kept"))

        with pytest.raises(ExceptionGroup) as caught:
            await work()
        assert caught.group_contains(StoreError)
        assert (link.acknowledged, link.sent) == ([], [])


async def test_a_report_that_repeats_is_kept_without_a_decision(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch(
            [incoming("edge-1", full("edge-1", 1, 22)), incoming("edge-1", full("edge-1", 2, 22))]
        )
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 3, 22))])
        assert [one["seq"] for one in receipts_sent(harness, "edge-1")] == [1, 2, 3]
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
        assert receipts_sent(harness, "edge-1")[-1]["reason"] == "stale_sequence"
        assert await harness.audited("edge-1") == [AuditKind.REPORT_FIRST_ACCEPTED]
    async with open_harness(tmp_path / "c.db") as harness:
        assert devices_of(harness.fleet)["edge-1"].report_seq == 3
        assert devices_of(harness.fleet)["edge-1"].reported_at > 0


def test_the_usual_receipt_is_what_the_model_says() -> None:
    digest = digest_of(reports.sections(22))
    assert accepted_json(7, digest) == ReportReceipt(seq=7, verdict=ReceiptVerdict.ACCEPTED, digest=digest).to_json()
