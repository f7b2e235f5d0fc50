"""The broker is made to hold what the store says; what is not ours is left alone."""

from pathlib import Path

from controller.ports.broker import AccessRule, Ban, Change, restriction
from tests.support.reports import full, incoming
from tests.support.world import START, World, world


async def contained(place: World, *ports: int) -> None:
    await place.ingest.take([incoming("edge-1", full("edge-1", 1, *ports))])
    await place.drain()


async def test_rules_deleted_by_hand_come_back(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await contained(place, 23)
        del place.broker.rules_held["edge-1"]
        (drift,) = await place.reconciler.reconcile()
        assert drift.what == "the rules of the restriction are missing"
        await place.drain()
        assert place.broker.rules_held["edge-1"] == restriction("edge-1")
        assert await place.reconciler.reconcile() == []
        assert "drift found" in await place.audited("edge-1")


async def test_altered_rules_are_put_right_and_the_first_ones_restored_in_the_end(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        before = (AccessRule("fleet/#", "allow", "all"),)
        place.broker.rules_held["edge-1"] = before
        await contained(place, 23)
        place.broker.rules_held["edge-1"] = (AccessRule("#", "allow", "all"),)
        await place.reconciler.reconcile()
        await place.drain()
        assert place.broker.rules_held["edge-1"] == restriction("edge-1")
        await place.ingest.take([incoming("edge-1", full("edge-1", 2, 22))])
        await place.drain()
        assert place.broker.rules_held["edge-1"] == before


async def test_a_ban_lifted_by_hand_comes_back_with_its_end(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await contained(place, 2375)
        until = place.broker.bans_held.pop("edge-1").until
        await place.reconciler.reconcile()
        await place.drain()
        assert place.broker.bans_held["edge-1"].until == until == START + 600


async def test_a_ban_of_ours_that_nothing_asks_for_is_lifted(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.take([incoming("edge-1", full("edge-1", 1, 22))])
        place.broker.bans_held["edge-1"] = Ban("clientid", "edge-1", "cordon/old", "", START, None)
        await place.reconciler.reconcile()
        await place.drain()
        assert place.broker.bans_held == {}


async def test_strangers_are_left_alone(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.take([incoming("edge-1", full("edge-1", 1, 22))])
        foreign = {
            "edge-1": Ban("clientid", "edge-1", "somebody", "", START, None),
            "edge-9": Ban("clientid", "edge-9", "cordon/lost", "", START, None),
        }
        place.broker.bans_held = dict(foreign)
        place.broker.rules_held["edge-1"] = (AccessRule("a/#", "deny", "all"),)
        assert await place.reconciler.reconcile() == []
        assert place.broker.bans_held == foreign
        assert any("do not know" in event for event, _ in place.logged)


async def test_what_is_under_way_is_no_drift(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.take([incoming("edge-1", full("edge-1", 1, 23))])
        assert await place.reconciler.reconcile() == []


async def test_settings_that_were_there_are_put_back(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        assert await place.reconciler.reconcile() == []
        place.broker.lacks = [Change("rules for all", "none", "three")]
        (drift,) = await place.reconciler.reconcile()
        assert (drift.device_id, drift.what) == ("", "rules for all: was altered, put back")
        assert await place.reconciler.reconcile() == []


async def test_settings_that_never_were_there_are_an_operators_business(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        place.broker.lacks = [Change("rules for all", "none", "three")]
        for _ in range(2):
            (drift,) = await place.reconciler.reconcile()
            assert drift.what == "rules for all: missing, run `cordon init`"
        assert place.reconciler.lacks == "rules for all"
        assert [event for event, _ in place.logged].count("the broker lacks what Cordon needs") == 1
