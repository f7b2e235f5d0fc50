"""Rows that many want at the same moment: one listing instead of a call for each, and never a wrong "not there"."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from controller.adapters.emqx.client.coalescing import CoalescedRequests
from controller.adapters.emqx.client.row_reader import LISTED_FROM
from controller.adapters.emqx.containment.context import ProofRecorder
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerError
from tests.support.scripted_emqx import BASES, ScriptedEmqx, error

LISTING = "GET /authorization/sources/built_in_database/rules/clients"
RULE = {"topic": "a", "permission": "allow", "action": "all"}


class Listed(ScriptedEmqx):
    """A scripted EMQX that also lists its rules, but for the rows in `skipped`."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.skipped: set[str] = set()
        self.fails = False
        for table in self.rules.values():
            table.update({f"d{n}": [RULE] for n in range(rows)})

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET" or not request.url.path.endswith("/rules/clients"):
            return super().answer(request)
        self.calls.append(("GET", request.url.path.removeprefix("/api/v5")))
        if self.fails:
            return error(503, "SERVICE_UNAVAILABLE")
        table: dict[str, Any] = self.rules[BASES[1]]
        rows = [{"clientid": name, "rules": rules} for name, rules in table.items() if name not in self.skipped]
        return httpx.Response(200, json={"data": rows, "meta": {"count": len(rows)}})

    def listings(self) -> int:
        return sum(f"{method} {path}" == LISTING for method, path in self.calls)

    def singles(self) -> int:
        return sum(path.startswith(f"{LISTING.removeprefix('GET ')}/") for _, path in self.calls)


async def _read(emqx: Listed, names: Sequence[str]) -> list[AccessRules | None]:
    reader = CoalescedRequests(emqx.broker().api).rules_at[BASES[1]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.get(name, ProofRecorder().add)) for name in names]
    return [task.result() for task in tasks]


async def test_many_are_read_by_the_listing() -> None:
    emqx = Listed(LISTED_FROM * 2)
    found = await _read(emqx, [f"d{n}" for n in range(LISTED_FROM * 2)])
    assert all(found)
    assert emqx.listings() == 1
    assert emqx.singles() <= 1


async def test_few_are_read_one_by_one() -> None:
    emqx = Listed(100)
    assert all(await _read(emqx, ["d1", "d2", "d3"]))
    assert (emqx.listings(), emqx.singles()) == (0, 3)


async def test_a_row_that_is_not_listed_is_read_before_it_counts_as_not_there() -> None:
    emqx = Listed(LISTED_FROM * 2)
    emqx.skipped = {"d3"}
    names = [f"d{n}" for n in range(LISTED_FROM * 2)]
    found = await _read(emqx, [*names, "nobody"])
    assert all(found[:-1])
    assert found[-1] is None


async def test_a_listing_that_is_much_longer_than_what_is_wanted_is_not_read_again() -> None:
    emqx = Listed(LISTED_FROM * 100)
    reader = CoalescedRequests(emqx.broker().api).rules_at[BASES[1]]
    for _ in range(2):
        async with asyncio.TaskGroup() as group:
            for n in range(LISTED_FROM * 2):
                group.create_task(reader.get(f"d{n}", ProofRecorder().add))
    assert emqx.listings() == 1


async def test_a_listing_that_fails_fails_those_who_wait_for_it() -> None:
    emqx = Listed(LISTED_FROM * 2)
    emqx.fails = True
    with pytest.raises(ExceptionGroup) as caught:
        await _read(emqx, [f"d{n}" for n in range(LISTED_FROM * 2)])
    assert all(isinstance(one, BrokerError) for one in caught.value.exceptions)
