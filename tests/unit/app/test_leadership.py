"""What the leader runs is made of the store when it begins to lead, and gone when it ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.api.context import NoLeaderError
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.errors import SettingsError, StoreError
from controller.ports.leases import ALL_BUCKETS
from controller.service.containment.waivers import WaiverRequest
from schemas.topics import UpChannel
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.leases import MemoryLeases
from tests.support.reports import full, incoming
from tests.support.rollouts import FakeTargets, open_rollouts, seed_devices, software


@contextlib.asynccontextmanager
async def _running(harness: ControllerHarness) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(harness.controller.leadership.run())
        yield
        task.cancel()


async def _until(harness: ControllerHarness, *, leads: bool) -> None:
    async with asyncio.timeout(5):
        while (harness.services.leader is not None) is not leads:
            await asyncio.sleep(0)


async def test_a_controller_with_a_store_of_its_own_leads_from_the_start(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        leader = harness.services.leader
        assert leader is not None
        async with _running(harness):
            await asyncio.sleep(0)
            assert harness.services.leader is leader


async def test_the_leaders_part_comes_and_goes_with_the_lease(tmp_path: Path) -> None:
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness, _running(harness):
        with pytest.raises(NoLeaderError):
            _ = harness.services.containment
        leases.set(is_leader=True)
        await _until(harness, leads=True)
        first = harness.services.leader
        assert harness.services.containment is not None
        leases.is_leader = False  # nobody has been told
        with pytest.raises(NoLeaderError):
            _ = harness.services.containment
        leases.is_leader = True
        leases.set(is_leader=False)
        await _until(harness, leads=False)
        async with asyncio.timeout(5):
            while {task.get_name() for task in asyncio.all_tasks()} & {"reconciler", "approvals", "rollouts"}:
                await asyncio.sleep(0)
        leases.set(is_leader=True)
        await _until(harness, leads=True)
        assert harness.services.leader is not first


async def test_what_was_built_for_an_earlier_lease_follows_no_commit(tmp_path: Path) -> None:
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness, _running(harness):
        before = len(harness.fleet._listeners)
        for _ in range(2):
            leases.set(is_leader=True)
            await _until(harness, leads=True)
            assert len(harness.fleet._listeners) > before
            leases.set(is_leader=False)
            await _until(harness, leads=False)
            assert len(harness.fleet._listeners) == before
        await harness.fleet.record(AuditEntry(AuditKind.POLICY_RELOADED, "", "tests"))


async def test_a_new_leader_knows_what_the_one_before_has_stored(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as first:
        rule = next(iter(first.fleet.policies.rules))
        await first.services.waivers.add(WaiverRequest(rule, "o", "r", "tests", 3600.0, device="edge-1"))
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "c.db", leases=leases) as second, _running(second):
        leases.set(is_leader=True)
        await _until(second, leads=True)
        assert [one.device for one in second.services.waivers.all()] == ["edge-1"]


async def test_a_mistake_in_what_the_leader_needs_is_found_at_the_start(tmp_path: Path) -> None:
    mistake = {"guards": {"protected_if": "no such ("}}
    with pytest.raises(SettingsError):
        async with open_harness(tmp_path / "c.db", leases=MemoryLeases(ALL_BUCKETS), settings=mistake):
            pass


async def test_a_store_that_cannot_be_read_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = MemoryLeases(ALL_BUCKETS)
    monkeypatch.setattr("controller.app.leadership._RETRY", 0.001)
    async with open_harness(tmp_path / "c.db", leases=leases) as harness, _running(harness):
        real, failures = harness.store.user_cases, [StoreError("away")]

        async def user_cases() -> object:
            if failures:
                raise failures.pop()
            return await real()

        monkeypatch.setattr(harness.store, "user_cases", user_cases)
        leases.set(is_leader=True)
        await _until(harness, leads=True)
        assert "this controller cannot lead yet" in [event for event, _ in harness.logged]


async def test_a_rollout_goes_on_with_the_next_leader(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        assert set(made.orders()) == {"t1"}
        order = made.orders()["t1"]["command_id"]
    leases = MemoryLeases(ALL_BUCKETS)
    async with open_harness(tmp_path / "db", leases=leases, targets=FakeTargets()) as harness, _running(harness):
        leases.set(is_leader=True)
        await _until(harness, leads=True)
        done = {
            "v": 1, "command_id": order, "state": "succeeded", "reason": "", "at": "2026-11-23T10:00:00Z",
            "detail": {"phase": "confirmed", "name": "app", "version": "2.0"},
        }  # fmt: skip
        section = software("2.0", attempted="2.0", command_id=order)
        await harness.ingest.process_batch(
            [
                incoming("t1", json.dumps(done).encode(), UpChannel.RESULT),
                incoming("t1", full("t1", 100, software=section)),
            ]
        )
        operations = harness.services.rollouts.operations
        async with asyncio.timeout(5):
            while not any(one.rings[0].confirmed == 1 for one in operations.open()):
                await asyncio.sleep(0.01)
