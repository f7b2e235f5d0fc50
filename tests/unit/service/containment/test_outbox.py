"""Effects are carried out at least once, in order, and never for a decision that was overtaken."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import Subject
from controller.domain.events import CommandRequested, ContainmentOrdered, ReleaseOrdered, StatusChanged
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import AuthStrength, Proof
from controller.ports.broker_tables import AccessRule, Ban, restriction
from controller.ports.errors import BrokerUnreachableError, NoSubscriberError
from controller.service.containment.outbox import CONTAINING, SENDING
from tests.support.controller_harness import MemoryLink, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, incoming

ANYONE = AccessRule("fleet/#", "allow", "all")


async def test_what_was_decided_before_a_crash_is_carried_out_after_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        assert harness.broker.calls == []
    async with open_harness(tmp_path / "c.db") as harness:
        assert harness.outbox.queue.pending == 2
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")
        assert harness.outbox.queue.pending == 0
    async with open_harness(tmp_path / "c.db") as harness:
        assert harness.outbox.queue.pending == 0


async def test_trouble_is_told_once_and_tried_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.fails = [BrokerUnreachableError("no node answered")] * 3
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(harness.outbox.run())
            while harness.outbox.queue.pending:
                await asyncio.sleep(0.01)
            running.cancel()
        kinds = await harness.audited("edge-1")
        assert kinds.count(AuditKind.CONTAINMENT_FAILED) == 1
        assert kinds.count(AuditKind.CONTAINMENT_PROVEN) == 1
        assert harness.outbox.counts["retried"] == 3


async def test_a_violation_is_not_queued_behind_what_operators_ordered_for_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        release = asyncio.Event()
        restrict = type(harness.broker).restrict

        async def slow(self: object, subject: Subject, *args: Any, violates: bool = False, **options: Any) -> Proof:
            if not violates:
                await release.wait()  # the broker is busy with every device of the bulk
            proof: Proof = await restrict(self, subject, *args, violates=violates, **options)  # type: ignore[arg-type]
            return proof

        monkeypatch.setattr(type(harness.broker), "restrict", slow)
        bulk = [f"bulk-{number}" for number in range(CONTAINING + 10)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(harness.outbox.run())
            for name in bulk:
                order = ContainmentOrdered(
                    harness.fleet.new_id(), ContainmentLevel.RESTRICTED, "operator:a", "odd", None
                )
                await harness.fleet.apply_and_commit(name, order)
            await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
            while "edge-1" not in harness.broker.rules_held:
                await asyncio.sleep(0.01)
            assert not any(name in harness.broker.rules_held for name in bulk)
            release.set()
            while harness.outbox.queue.pending:
                await asyncio.sleep(0.01)
            running.cancel()


async def test_commands_that_hang_hold_no_containment_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More devices wait for the broker's word on a command than there are workers; another is contained meanwhile."""

    async def never(*_arguments: object, **_options: object) -> None:
        await asyncio.Event().wait()

    async with open_harness(tmp_path / "c.db") as harness:
        monkeypatch.setattr(MemoryLink, "publish_confirmed", never)
        new = harness.fleet.new_id
        for number in range(SENDING + CONTAINING + 1):
            await harness.fleet.apply_and_commit(
                f"busy-{number}", CommandRequested(new(), "rescan", (), "op", 60.0, False)
            )
        await harness.fleet.apply_and_commit(
            "edge-1", ContainmentOrdered(new(), ContainmentLevel.ISOLATED, "op", "why", None)
        )
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(harness.outbox.run())
            while harness.outbox.queue.is_busy("edge-1"):
                await asyncio.sleep(0.01)
            running.cancel()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")


async def test_a_proof_that_does_not_hold_is_no_containment(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.misses = 1
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await harness.drain()
        case = devices_of(harness.fleet)["edge-1"].case
        assert case is not None
        assert (case.proven_level, case.trouble) == (ContainmentLevel.NONE, "read back and not there")
        assert harness.outbox.queue.pending == 2


async def test_a_release_overtakes_a_containment_that_was_never_possible(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.fails = [BrokerUnreachableError("away")]
        new = harness.fleet.new_id
        await harness.fleet.apply_and_commit(
            "edge-1", ContainmentOrdered(new(), ContainmentLevel.ISOLATED, "op", "why", None)
        )
        await harness.drain()
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", "never mind"))
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", "really"))
        await harness.drain()
        assert harness.broker.calls == ["isolate edge-1", "release edge-1"]
        assert harness.outbox.queue.pending == 0


async def test_rules_of_before_survive_a_case_that_follows_at_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.rules_held["edge-1"] = (ANYONE,)
        new = harness.fleet.new_id
        await harness.fleet.apply_and_commit(
            "edge-1", ContainmentOrdered(new(), ContainmentLevel.RESTRICTED, "op", "one", None)
        )
        await harness.drain()
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", ""))
        await harness.fleet.apply_and_commit(
            "edge-1", ContainmentOrdered(new(), ContainmentLevel.RESTRICTED, "op", "two", None)
        )
        await harness.drain()
        await harness.fleet.apply_and_commit("edge-1", ReleaseOrdered(new(), "op", ""))
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == (ANYONE,)


async def test_nobody_is_contained_on_a_claim(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.grades["edge-1"] = AuthStrength.CLAIMED
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await harness.drain()
        device = devices_of(harness.fleet)["edge-1"]
        assert device.case is None
        assert harness.broker.rules_held == {}
        assert AuditKind.CONTAINMENT_REFUSED in await harness.audited("edge-1")
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 23, 24))])
        assert devices_of(harness.fleet)["edge-1"].case is None


async def test_a_device_that_our_own_ban_keeps_out_is_isolated_further(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 2375))])
        harness.broker.grades["edge-1"] = AuthStrength.UNSEEN
        harness.broker.bans_held["edge-1"] = Ban("clientid", "edge-1", "cordon/earlier", "", 0.0, None)
        await harness.drain()
        assert harness.outbox.queue.pending == 0
        assert AuditKind.CONTAINMENT_PROVEN in await harness.audited("edge-1")


async def test_a_session_that_is_gone_for_another_reason_proves_nothing(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 2375))])
        harness.broker.grades["edge-1"] = AuthStrength.UNSEEN
        harness.broker.bans_held["edge-1"] = Ban("clientid", "edge-1", "somebody", "", 0.0, None)
        await harness.drain()
        assert AuditKind.CONTAINMENT_FAILED in await harness.audited("edge-1")


async def test_an_operator_needs_nobodys_word(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.grades["edge-1"] = AuthStrength.CLAIMED
        event = ContainmentOrdered(harness.fleet.new_id(), ContainmentLevel.ISOLATED, "op", "stolen", None)
        await harness.fleet.apply_and_commit("edge-1", event)
        await harness.drain()
        assert harness.broker.bans_held["edge-1"].by == f"cordon/{event.event_id}"


async def test_a_command_for_a_device_that_is_away_waits_until_it_is_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.link.confirm = NoSubscriberError("nobody there")
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await harness.drain()
        assert harness.outbox.queue.pending == 0
        harness.link.confirm = None
        before = len(harness.link.sent)
        await harness.fleet.apply_and_commit("edge-1", StatusChanged(harness.fleet.new_id(), True, "boot"))
        await harness.drain()
        assert len(harness.link.sent) == before + 1


async def test_how_the_identity_was_proved_is_in_case_and_record(tmp_path: Path) -> None:
    for grade, evidence in ((AuthStrength.PROVEN, Evidence.MUTUAL_TLS), (AuthStrength.KNOWN, Evidence.PASSWORD)):
        async with open_harness(tmp_path / f"{grade.value}.db") as harness:
            harness.broker.grades["edge-1"] = grade
            await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
            await harness.drain()
            case = devices_of(harness.fleet)["edge-1"].case
            assert case is not None
            assert case.evidence is evidence
            (line,) = await harness.store.audit(kind=AuditKind.CONTAINMENT_PROVEN)
            assert (line.entry.detail or {})["evidence"] == evidence.value
