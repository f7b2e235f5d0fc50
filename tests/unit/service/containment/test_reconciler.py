"""The broker is made to hold what the store says; what is not ours is left alone."""

from dataclasses import replace
from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import AccessRule, Ban, restriction
from controller.service.containment.comparison import CERTAIN
from controller.service.containment.drift import DriftState
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.reports import full, incoming


async def contained(harness: ControllerHarness, *ports: int) -> None:
    await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, *ports))])
    await harness.drain()


async def test_rules_deleted_by_hand_come_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 23)
        del harness.broker.rules_held["edge-1"]
        (drift,) = await harness.reconciler.reconcile()
        assert drift.what == "the rules of the restriction are missing"
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")
        assert await harness.reconciler.reconcile() == []
        assert AuditKind.BROKER_DRIFT_FOUND in await harness.audited("edge-1")


async def test_altered_rules_are_put_right_and_the_first_ones_restored_in_the_end(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        before = (AccessRule("fleet/#", "allow", "all"),)
        harness.broker.rules_held["edge-1"] = before
        await contained(harness, 23)
        harness.broker.rules_held["edge-1"] = (AccessRule("#", "allow", "all"),)
        await harness.reconciler.reconcile()
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == restriction("edge-1")
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
        await harness.drain()
        assert harness.broker.rules_held["edge-1"] == before


async def test_a_ban_lifted_by_hand_comes_back_with_its_end(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 2375)
        until = harness.broker.bans_held.pop("edge-1").until
        await harness.reconciler.reconcile()
        await harness.drain()
        assert harness.broker.bans_held["edge-1"].until == until == START + 600


async def test_a_ban_of_ours_that_nothing_asks_for_is_lifted(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        harness.broker.bans_held["edge-1"] = Ban("clientid", "edge-1", "cordon/old", "", START, None)
        await harness.reconciler.reconcile()
        await harness.drain()
        assert harness.broker.bans_held == {}


async def test_strangers_are_left_alone(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        foreign = {
            "edge-1": Ban("clientid", "edge-1", "somebody", "", START, None),
            "edge-9": Ban("clientid", "edge-9", "cordon/lost", "", START, None),
        }
        harness.broker.bans_held = dict(foreign)
        harness.broker.rules_held["edge-1"] = (AccessRule("a/#", "deny", "all"),)
        (stranger,) = await harness.reconciler.reconcile()
        assert (stranger.device_id, stranger.state) == ("edge-9", DriftState.ALERTED)
        assert harness.broker.bans_held == foreign
        assert harness.broker.rules_held["edge-1"] == (AccessRule("a/#", "deny", "all"),)
        await harness.reconciler.reconcile()
        (line,) = await harness.store.audit(kind=AuditKind.BROKER_DRIFT_FOUND)
        assert line.entry.detail is not None
        assert line.entry.detail["device"] == "edge-9", "told once, not in every pass"


async def test_what_is_under_way_is_no_drift(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        assert await harness.reconciler.reconcile() == []


async def test_settings_that_were_there_are_put_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        assert await harness.reconciler.reconcile() == []
        harness.setup.lacks = [SettingChange("rules for all", "none", "three")]
        (drift,) = await harness.reconciler.reconcile()
        assert (drift.device_id, drift.what, drift.state) == ("", "rules for all: altered", DriftState.REPAIRING)
        assert await harness.reconciler.reconcile() == []
        assert [one.state for one in harness.reconciler.book.closed] == [DriftState.REPAIRED]


async def test_what_could_cut_a_fleet_off_is_left_to_an_operator(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.reconciler.reconcile()
        harness.setup.lacks = [SettingChange("no_match", "allow", "deny", danger="cuts off who has no rules")]
        for _ in range(2):
            (drift,) = await harness.reconciler.reconcile()
            assert (drift.state, drift.detail) == (DriftState.ALERTED, "cuts off who has no rules")
        assert len(await harness.store.audit(kind=AuditKind.BROKER_DRIFT_FOUND, alerts_only=True)) == 1
        assert [one.state for one in harness.reconciler.book.open] == [DriftState.ALERTED]


async def test_settings_that_never_were_there_are_an_operators_business(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.setup.lacks = [SettingChange("rules for all", "none", "three")]
        for _ in range(2):
            (drift,) = await harness.reconciler.reconcile()
            assert (drift.what, drift.state) == ("rules for all: missing", DriftState.ALERTED)
            assert "cordon broker setup --apply" in drift.detail
        assert harness.reconciler.lacks == "rules for all"
        assert len(await harness.store.audit(kind=AuditKind.BROKER_DRIFT_FOUND)) == 1


async def test_a_ban_whose_end_was_changed_is_replaced(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 2375)
        harness.broker.bans_held["edge-1"] = replace(harness.broker.bans_held["edge-1"], until=START + 5)
        (drift,) = await harness.reconciler.reconcile()
        assert drift.what == "the ban ends at another time"
        harness.clock.at += 6
        (drift,) = [one for one in await harness.reconciler.reconcile() if one.device_id] or [drift]
        await harness.drain()
        assert "isolate edge-1" in harness.broker.calls[-3:] or harness.broker.calls.count("isolate edge-1") == 2


async def test_a_row_that_a_page_skipped_is_no_drift(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 2375)
        harness.tables.skipped = {"edge-1"}
        assert await harness.reconciler.reconcile() == []
        assert AuditKind.BROKER_DRIFT_FOUND not in await harness.audited("edge-1")


async def test_a_node_that_joined_empty_is_told_and_mended_through_itself(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 23)
        harness.tables.addresses = ("one", "two", "three")
        harness.tables.missing = {"three": {"edge-1"}}
        found = await harness.reconciler.reconcile()
        assert [(one.device_id, one.what, one.node) for one in found] == [
            ("", "nodes hold different bans or rules", ""),
            ("edge-1", "the rules of the restriction are missing", "three"),
        ]
        assert "three: 0 bans, 0 rows of rules" in found[0].detail
        assert "write rules edge-1 at three" in harness.broker.calls
        await harness.drain()
        assert await harness.reconciler.reconcile(everywhere=True) == []
        assert {one.state for one in harness.reconciler.book.closed} == {DriftState.GONE, DriftState.REPAIRED}


async def test_every_node_has_its_turn(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, 23)
        harness.tables.addresses = ("one", "two", "three")
        harness.broker.rules_held["edge-2"] = ()  # so that the counts are equal and only the contents differ
        harness.tables.missing = {"one": {"edge-2"}, "two": {"edge-2"}, "three": {"edge-1"}}
        seen = [await harness.reconciler.reconcile() for _ in range(3)]
        assert [[one.node for one in found] for found in seen] == [[], [], ["three"]]


async def test_many_rows_lost_at_once_are_asked_for_without_reading_each_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        many = CERTAIN + 50
        reports = [incoming(f"edge-{n}", full(f"edge-{n}", 1, 23)) for n in range(many)]
        await harness.ingest.process_batch(reports)
        await harness.drain()
        harness.broker.rules_held.clear()
        assert len(await harness.reconciler.reconcile()) == many
        await harness.drain()
        assert len(harness.broker.rules_held) == many
        assert await harness.reconciler.reconcile() == []
