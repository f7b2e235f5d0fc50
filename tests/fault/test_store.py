"""The store cannot write: nothing is acknowledged, health says why, and when it can again nothing is missing."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from tests.support.controller_harness import world
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
    async with world(path) as place, asyncio.TaskGroup() as group:
        async with fault(place, path):
            taking = group.create_task(place.ingest.process_batch(batch))
            await eventually(lambda: words in place.store.health.trouble)
            # Not a PUBACK, not a receipt, nothing done at the broker: nothing is promised that is not kept.
            assert (place.link.acknowledged, place.link.sent, place.broker.calls) == ([], [], [])
            assert not taking.done()
            assert place.outbox.queue.pending == 0
        await taking
        await eventually(lambda: place.store.health.trouble == "")
        assert place.link.acknowledged == batch
        assert [json.loads(raw)["verdict"] for _, raw in place.link.sent] == ["accepted"] * len(batch)
        await place.drain()
        assert place.broker.calls == ["grade edge-1", "restrict edge-1"]
        assert [event for event, _ in place.logged] == ["store cannot write", "store writes again"]
    async with world(path) as place:
        assert {name: place.level(name) for name in place.fleet.devices} == {
            "edge-1": ContainmentLevel.RESTRICTED,
            **others,
        }


@pytest.mark.parametrize("name", ["locked", "read-only", "taken away"])  # one line finds room in the last page
async def test_an_operators_containment_waits_too_and_is_carried_out_once(tmp_path: Path, name: str) -> None:
    fault, words = STORE_FAULTS[name]
    path = tmp_path / "c.db"
    async with world(path) as place, asyncio.TaskGroup() as group:
        await place.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        fleet = place.fleet
        contained = ContainmentOrdered(fleet.new_id(), ContainmentLevel.ISOLATED, "op", "by hand", None)
        async with fault(place, path):
            handling = group.create_task(fleet.apply_and_commit("edge-1", contained))
            await eventually(lambda: words in place.store.health.trouble)
            await place.drain()
            assert place.broker.calls == []
        await handling
        await place.drain()
        assert place.broker.calls == ["isolate edge-1"]
        kinds = await place.audited("edge-1")
        assert kinds == [AuditKind.REPORT_FIRST_ACCEPTED, AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_PROVEN]


async def test_a_kill_while_the_store_cannot_write_leaves_nothing_promised_and_nothing_half_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.db"
    message = incoming("edge-1", full("edge-1", 1, 23))
    async with world(path) as place, asyncio.TaskGroup() as group, store_locked(place, path):
        taking = group.create_task(place.ingest.process_batch([message]))
        await eventually(lambda: place.store.health.trouble != "")
        taking.cancel()
        await asyncio.wait([taking])
        assert place.link.acknowledged == []
        # What a machine that lost power now would find.
        await asyncio.to_thread(shutil.copy, path, tmp_path / "copy.db")
    async with world(tmp_path / "copy.db") as place:
        assert place.fleet.devices == {}
        await place.ingest.process_batch([message])  # the broker delivers it again
        await place.drain()
        assert place.level("edge-1") is ContainmentLevel.RESTRICTED
