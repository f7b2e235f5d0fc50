"""The store cannot write: nothing is acknowledged, health says why, and when it can again nothing is missing."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, incoming
from tests.support.store_faults import STORE_FAULTS, store_locked
from tests.support.waiting import eventually


@pytest.mark.parametrize("name", STORE_FAULTS)
async def test_reports_wait_unacknowledged_and_are_all_kept_in_the_end(tmp_path: Path, name: str) -> None:
    fault, words = STORE_FAULTS[name]
    path = tmp_path / "c.db"
    # Enough that it needs new pages of the file.
    others = {f"edge-{number}": ContainmentLevel.NONE for number in range(2, 200)}
    batch = [incoming("edge-1", full("edge-1", 1, 23)), *(incoming(other, full(other, 1, 22)) for other in others)]
    async with open_harness(path) as harness, asyncio.TaskGroup() as group:
        async with fault(harness, path):
            taking = group.create_task(harness.ingest.process_batch(batch))
            await eventually(lambda: words in harness.store.health.trouble)
            # Not a PUBACK, not a receipt, nothing done at the broker: nothing is promised that is not kept.
            assert (harness.link.acknowledged, harness.link.sent, harness.broker.calls) == ([], [], [])
            assert not taking.done()
            assert harness.outbox.queue.pending == 0
        await taking
        await eventually(lambda: harness.store.health.trouble == "")
        assert harness.link.acknowledged == batch
        assert [json.loads(raw)["verdict"] for _, raw in harness.link.sent] == ["accepted"] * len(batch)
        await harness.drain()
        assert harness.broker.calls == ["grade edge-1", "restrict edge-1"]
        assert [event for event, _ in harness.logged] == ["store cannot write", "store writes again"]
    async with open_harness(path) as harness:
        assert {name: harness.level(name) for name in devices_of(harness.fleet)} == {
            "edge-1": ContainmentLevel.RESTRICTED,
            **others,
        }


@pytest.mark.parametrize("name", ["locked", "read-only", "taken away"])  # one line finds room in the last page
async def test_an_operators_containment_waits_too_and_is_carried_out_once(tmp_path: Path, name: str) -> None:
    fault, words = STORE_FAULTS[name]
    path = tmp_path / "c.db"
    async with open_harness(path) as harness, asyncio.TaskGroup() as group:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        fleet = harness.fleet
        contained = ContainmentOrdered(fleet.new_id(), ContainmentLevel.ISOLATED, "op", "by hand", None)
        async with fault(harness, path):
            handling = group.create_task(fleet.apply_and_commit("edge-1", contained))
            await eventually(lambda: words in harness.store.health.trouble)
            await harness.drain()
            assert harness.broker.calls == []
        await handling
        await harness.drain()
        assert harness.broker.calls == ["isolate edge-1"]
        kinds = await harness.audited("edge-1")
        assert kinds == [AuditKind.REPORT_FIRST_ACCEPTED, AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_PROVEN]


async def test_a_kill_while_the_store_cannot_write_leaves_nothing_promised_and_nothing_half_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.db"
    message = incoming("edge-1", full("edge-1", 1, 23))
    async with open_harness(path) as harness, asyncio.TaskGroup() as group, store_locked(harness, path):
        taking = group.create_task(harness.ingest.process_batch([message]))
        await eventually(lambda: harness.store.health.trouble != "")
        taking.cancel()
        await asyncio.wait([taking])
        assert harness.link.acknowledged == []
        # What a machine that lost power now would find.
        await asyncio.to_thread(shutil.copy, path, tmp_path / "copy.db")
    async with open_harness(tmp_path / "copy.db") as harness:
        assert devices_of(harness.fleet) == {}
        await harness.ingest.process_batch([message])  # the broker delivers it again
        await harness.drain()
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
