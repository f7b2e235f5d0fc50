"""Trouble that lasts is recorded once with an alert, and its end too; that of the store is told directly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.notifications.kinds import STORE_TROUBLE
from controller.ports.broker_tables import UnreadNode
from controller.ports.store import StoreHealth
from controller.service.notifications.watch import PATIENCE, TroubleWatch
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.notifications import SECRETS, add_sink, deliver

Patch = Callable[[type, str, Any], None]


def _kinds(lines: Any) -> list[tuple[str, bool]]:
    return [
        (one.entry.kind.value, one.entry.alert) for one in lines if one.entry.kind.value.startswith(("l", "b", "s"))
    ]


async def _lines(harness: ControllerHarness) -> list[tuple[str, bool]]:
    return _kinds(await harness.store.audit(newest_first=False))


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Sets what a property of a class returns."""
    return lambda kind, name, value: monkeypatch.setattr(kind, name, property(lambda _self: value))


async def test_a_lost_link_and_an_unread_node_are_recorded_when_they_last(tmp_path: Path, patch: Patch) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        watch = harness.loop(TroubleWatch)
        state = harness.link.state
        patch(type(harness.link), "state", replace(state, connected=False, detail="refused"))
        patch(type(harness.services.nodes), "unread", (UnreadNode("emqx@b", "no answer"),))
        await watch.look()
        harness.clock.at += PATIENCE - 1
        await watch.look()
        assert await _lines(harness) == []
        harness.clock.at += 1
        await watch.look()
        await watch.look()
        assert await _lines(harness) == [("link.lost", True), ("broker.unread", True)]
    async with open_harness(tmp_path / "c.db") as harness:  # what was recorded before a restart is known after it
        harness.clock.at += 2 * PATIENCE
        watch = harness.loop(TroubleWatch)
        patch(type(harness.link), "state", state)
        patch(type(harness.services.nodes), "unread", ())
        await watch.load()
        await watch.look()
        await watch.look()
        assert (await _lines(harness))[2:] == [("broker.read_again", False), ("link.restored", False)]


async def test_what_passes_within_a_minute_is_not_recorded(tmp_path: Path, patch: Patch) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        watch, state = harness.loop(TroubleWatch), harness.link.state
        for connected in (False, True, False):
            patch(type(harness.link), "state", replace(state, connected=connected))
            await watch.look()
            harness.clock.at += PATIENCE - 1
        assert await _lines(harness) == []


async def test_a_store_that_cannot_write_is_told_directly_and_once(tmp_path: Path, patch: Patch) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        watch, health = harness.loop(TroubleWatch), harness.store.health
        patch(type(harness.store), "health", StoreHealth("disk full", harness.clock.now()))
        await watch.look()
        harness.clock.at += PATIENCE
        for _ in range(3):
            await watch.look()
        assert harness.sender.kinds("ops") == [STORE_TROUBLE]
        patch(type(harness.store), "health", health)
        await watch.look()
        assert await _lines(harness) == [("store.recovered", True)]
        await deliver(harness)
        assert harness.sender.kinds("ops") == [STORE_TROUBLE, "store.recovered"]
