"""Controllers on one store know each other's clients and keys."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.ports.controllers import ControllerBook, ControllerRecord
from controller.service.containment.operator_actions import ProtectedDeviceError
from controller.service.controllers import LIVE_FOR, RENEW_EVERY, Controllers, key_differences
from controller.service.fleet_state import OwnClientError
from controller.service.own_clients import OwnClients
from tests.support.clocks import ManualClock
from tests.support.controller_harness import open_harness


class Book(ControllerBook):
    def __init__(self) -> None:
        self.held: dict[str, ControllerRecord] = {}
        self.puts = 0

    async def put(self, record: ControllerRecord, forget_before: float) -> None:
        self.puts += 1
        self.held = {name: one for name, one in self.held.items() if one.seen_at >= forget_before}
        self.held[record.name] = record

    async def records(self) -> Sequence[ControllerRecord]:
        return [self.held[name] for name in sorted(self.held)]


class Site:
    """A store with controllers that are started by name."""

    def __init__(self) -> None:
        self.book = Book()
        self.clock = ManualClock()
        self.logged: list[str] = []

    async def start(self, name: str, **keys: str) -> tuple[Controllers, OwnClients]:
        clients = OwnClients.of(f"cordon-{name}", f"user-{name}")
        record = ControllerRecord(name, f"cordon-{name}", self.clock.now(), f"user-{name}", keys)
        found = Controllers(self.book, record, clients, lambda: "v1", self.clock, self._log)
        await found.start()
        return found, clients

    def _log(self, event: str, _fields: Any) -> None:
        self.logged.append(event)


async def test_a_controller_that_starts_later_is_known_to_the_earlier_one() -> None:
    site = Site()
    first, clients = await site.start("a")
    await site.start("b")
    assert list(clients.ids) == ["cordon-a"]
    await first.look()
    assert list(clients.ids) == ["cordon-a", "cordon-b"]
    assert clients.usernames == {"user-a", "user-b"}
    assert [(one.name, one.policy_files) for one in first.live] == [("a", "v1"), ("b", "v1")]


async def test_one_that_does_not_run_stays_protected_and_is_not_compared() -> None:
    site = Site()
    await site.start("a", commands="1")
    site.clock.at += LIVE_FOR + 1
    second, clients = await site.start("b", commands="2")
    assert [one.name for one in second.live] == ["b"]
    assert second.warnings() == []
    assert "cordon-a" in clients.ids


async def test_the_record_is_renewed_in_time_and_not_at_each_look() -> None:
    site = Site()
    first, _ = await site.start("a")
    await first.look()
    assert site.book.puts == 1
    site.clock.at += RENEW_EVERY
    await first.look()
    assert site.book.puts == 2
    assert site.book.held["a"].seen_at == site.clock.now()


async def test_keys_that_differ_are_named_with_their_hosts() -> None:
    site = Site()
    await site.start("a", commands="1", authority="x")
    second, _ = await site.start("b", commands="2", authority="x", updates="u")
    texts = [
        "the key of commands is not the same on every controller: a has 1, b has 2",
        "the key of updates is not the same on every controller: a has none, b has u",
    ]
    assert second.warnings() == texts
    assert site.logged == texts


def test_equal_keys_are_no_difference() -> None:
    one = ControllerRecord("a", "c-a", 1.0, keys={"commands": "1"})
    assert key_differences([one, replace(one, name="b")]) == []


async def test_without_other_controllers_nothing_is_stored() -> None:
    clients, clock = OwnClients.of("cordon"), ManualClock()
    alone = Controllers(None, ControllerRecord("a", "cordon", 0.0), clients, str, clock, lambda *_: None)
    await alone.start()
    assert [one.name for one in alone.live] == ["a"]
    assert alone.warnings() == []


async def test_no_controllers_client_is_contained_or_becomes_a_device(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "store.db") as harness:
        harness.fleet.own.add([ControllerRecord("b", "cordon-b", 0.0, "user-b")])
        operators = harness.services.containment.operators
        with pytest.raises(ProtectedDeviceError, match="cordon-b"):
            await operators.check_protected(["edge-1", "cordon-b"], even_protected=True)
        await harness.fleet.load(["cordon-b"])
        with pytest.raises(OwnClientError):
            harness.fleet.get_or_new("cordon-b", harness.clock.now())
