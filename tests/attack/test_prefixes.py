"""Clients that bring `$` prefixes into use, so that a restriction has no rules left for the fleet's own."""

from typing import Any, Final

import pytest

from controller.adapters.emqx.client.cluster import ClusterNodes
from controller.adapters.emqx.client.prefixes import (
    FORGET_SECONDS,
    MAX_OF_CLIENT,
    MAX_OF_ROUTES,
    ROUTES,
    PrefixesInUse,
)
from controller.adapters.emqx.tables import EmqxTables
from controller.ports.broker_tables import KNOWN_PREFIXES, MAX_PREFIXES, restriction
from tests.support.clocks import ManualClock

MANY: Final = 200


class _Api:
    """Rows of rules, as the only node gives them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    addresses = ("http://node1",)

    def prompt(self) -> "_Api":
        return self

    with_priority = prompt

    def on_node(self, _node: str) -> "_Api":
        return self

    async def pages(self, _request: object, _limit: int) -> Any:
        yield self._rows


def _prefixes(clock: ManualClock | None = None, api: Any = None) -> PrefixesInUse:
    rows: Any = _Api([])
    return PrefixesInUse(api or rows, clock or ManualClock())


@pytest.mark.parametrize(("source", "most"), [("edge-1", MAX_OF_CLIENT), (ROUTES, MAX_OF_ROUTES)])
def test_clients_leave_room_for_what_operators_wrote(source: str, most: int) -> None:
    """Finding: one client with 64 subscriptions filled every place, and the fleet's own prefixes stayed open."""
    prefixes = _prefixes()
    for n in range(MANY):
        prefixes.note(f"$junk{n}/x", source)
    assert len(prefixes.found) == most
    prefixes.note("$plant/x")
    assert "$plant" in prefixes.found


def test_many_clients_together_have_half_of_the_places() -> None:
    prefixes = _prefixes()
    for n in range(MANY):
        prefixes.note(f"$junk{n}/x", f"edge-{n}")
    assert len(prefixes.found) == MAX_OF_ROUTES


def test_what_a_rule_names_takes_the_place_of_what_only_clients_use() -> None:
    prefixes = _prefixes()
    for n in range(MANY):
        prefixes.note(f"$junk{n}/x", ROUTES)
    for n in range(MAX_PREFIXES):
        prefixes.note(f"$plant{n}/x")
    assert prefixes.found == {f"$plant{n}" for n in range(MAX_PREFIXES)}
    assert len(prefixes.left_out) == MAX_PREFIXES


def test_what_is_left_out_is_told_and_bounded() -> None:
    prefixes = _prefixes()
    assert prefixes.left_out == ()
    for n in range(MAX_PREFIXES + 3):
        prefixes.note(f"$plant{n}/x")
    assert prefixes.left_out == tuple(f"$plant{n}" for n in range(MAX_PREFIXES, MAX_PREFIXES + 3))
    for n in range(10_000):
        prefixes.note(f"$junk{n}/x", ROUTES)
    assert len(prefixes.left_out) == MAX_PREFIXES


def test_a_prefix_that_nobody_uses_any_more_is_forgotten() -> None:
    clock = ManualClock()
    prefixes = _prefixes(clock)
    for n in range(MANY):
        prefixes.note(f"$junk{n}/x", ROUTES)
    prefixes.note("$plant/x")
    clock.at += FORGET_SECONDS / 2
    prefixes.note("$plant/x")
    clock.at += FORGET_SECONDS / 2 + 1
    assert prefixes.found == {"$plant"}
    assert prefixes.left_out == ()


@pytest.fixture(params=["a restriction", "a single deny"])
def denying(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    rules = restriction("edge-1", ["$junk"])
    if request.param == "a single deny":
        rules = rules[-1:]
    return [{"topic": rule.topic, "permission": rule.permission, "action": rule.action} for rule in rules]


async def test_the_rules_of_restrictions_keep_no_prefix_in_use(denying: list[dict[str, Any]]) -> None:
    """Finding: what one restriction denied was read back as in use, and so denied for ever by all."""
    api: Any = _Api([{"clientid": "edge-1", "rules": denying}])
    prefixes = _prefixes(api=api)
    tables = EmqxTables(api, ClusterNodes(api, ManualClock()), prefixes)
    assert [name async for name, _ in tables.rules("http://node1", lambda _: True)] == ["edge-1"]
    assert prefixes.found == frozenset()


@pytest.mark.parametrize(
    "rule",
    [
        {"topic": "$plant/#", "permission": "allow", "action": "all"},
        {"topic": "$plant/#", "permission": "deny", "action": "publish"},
        {"topic": "$plant/x", "permission": "deny", "action": "all"},
    ],
)
async def test_any_other_rule_shows_that_a_prefix_is_in_use(rule: dict[str, Any]) -> None:
    api: Any = _Api([{"clientid": "edge-1", "rules": [rule]}])
    prefixes = _prefixes(api=api)
    tables = EmqxTables(api, ClusterNodes(api, ManualClock()), prefixes)
    assert [name async for name, _ in tables.rules("http://node1", lambda _: True)] == ["edge-1"]
    assert prefixes.found == {"$plant"}
    assert not prefixes.found & set(KNOWN_PREFIXES)
