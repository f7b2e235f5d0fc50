"""The changes of the baseline setup, and the order of several sources: the stand-in has only one."""

import json

import httpx
import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.http import EmqxHttpClient
from controller.adapters.emqx.client.models import SourceRow
from controller.adapters.emqx.setup.baseline import (
    SetupSnapshot,
    apply,
    plan,
    restore_sources,
    rules_for_all,
    rules_for_controller,
)
from controller.adapters.system import SystemClock
from controller.ports.broker_tables import AccessRule

_SOURCES = "/api/v5/authorization/sources"


class Sources:
    """The sources of an EMQX that can move them."""

    def __init__(self, rows: list[SourceRow]) -> None:
        self.rows = rows

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, method = request.url.path, request.method
        if path == _SOURCES:
            return httpx.Response(200, json={"sources": [row.model_dump() for row in self.rows]})
        if path.endswith("/move"):
            self._move(path.split("/")[-2], json.loads(request.content)["position"])
        elif method == "PUT" and path.startswith(_SOURCES) and "/rules/" not in path:
            row = SourceRow.model_validate_json(request.content)
            self.rows = [row if each.type == row.type else each for each in self.rows]
        return httpx.Response(204)

    def _move(self, kind: str, position: str) -> None:
        row = next(each for each in self.rows if each.type == kind)
        rest = [each for each in self.rows if each.type != kind]
        where, _, other = position.partition(":")
        index = 0 if where == "front" else [each.type for each in rest].index(other) + 1
        self.rows = [*rest[:index], row, *rest[index:]]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("place", [1, 2])
async def test_the_database_is_moved_to_the_front_and_back_with_its_settings(enabled: bool, place: int) -> None:
    others = [SourceRow(type="file", enable=True), SourceRow(type="http", enable=False)]
    own = SourceRow.model_validate({"type": "built_in_database", "enable": enabled, "max_rules": 77})
    before = [*others[:place], own, *others[place:]]
    emqx = Sources(list(before))
    http = EmqxHttpClient(["http://n1"], "k", "s", clock=SystemClock(), transport=httpx.MockTransport(emqx.answer))
    api = EmqxApi(http)
    snapshot = SetupSnapshot("boss", await api.send(requests.read_sources()), rules_for_all(), rules_for_controller())

    await apply(api, plan(snapshot))
    assert [row.type for row in emqx.rows] == ["built_in_database", "file", "http"]
    assert emqx.rows[0] == own.model_copy(update={"enable": True})

    assert await restore_sources(api, snapshot.sources) == []
    assert emqx.rows == before


def snapshot(
    sources: tuple[tuple[str, bool], ...] = (("built_in_database", True),),
    for_all: tuple[AccessRule, ...] = (),
    own: tuple[AccessRule, ...] = (),
) -> SetupSnapshot:
    rows = tuple(SourceRow(type=kind, enable=enable) for kind, enable in sources)
    return SetupSnapshot("boss", rows, for_all, own)


def test_a_complete_broker_needs_no_change() -> None:
    theirs = (AccessRule("fleet/#", "allow", "all"),)
    assert plan(snapshot(for_all=rules_for_all() + theirs, own=rules_for_controller() + theirs)) == ()


def test_the_rules_for_all_end_by_denying_the_protocols_topics() -> None:
    last = rules_for_all()[-1]
    assert (last.topic, last.permission, last.action) == ("cordon/v1/#", "deny", "all")
    assert [rule.permission for rule in rules_for_all()] == ["allow", "allow", "deny"]


def test_misplaced_rules_move_to_the_front_and_others_keep_their_order() -> None:
    theirs = (AccessRule("a", "allow", "all"), AccessRule("#", "deny", "all"))
    todos = plan(snapshot(for_all=(theirs[0], *rules_for_all(), theirs[1]), own=rules_for_controller()))
    assert [todo.change.what for todo in todos] == ["rules for all clients"]
    lines = todos[0].change.after.splitlines()
    assert lines[-2:] == ["allow all a", "deny all #"]
    assert len(lines) == len(rules_for_all()) + 2


@pytest.mark.parametrize(
    ("sources", "before", "after"),
    [
        ((), "none", "built_in_database"),
        ((("file", True),), "file", "built_in_database, file"),
        ((("file", True), ("built_in_database", True)), "file, built_in_database", "built_in_database, file"),
        ((("built_in_database", False),), "built_in_database (off)", "built_in_database"),
    ],
)
def test_the_database_becomes_the_first_source(sources: tuple[tuple[str, bool], ...], before: str, after: str) -> None:
    todos = plan(snapshot(sources, rules_for_all(), rules_for_controller()))
    assert [(todo.change.before, todo.change.after) for todo in todos] == [(before, after)]
