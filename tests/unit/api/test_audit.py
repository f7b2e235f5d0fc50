"""Finding entries of the audit log by kind, actor and time; the containments of a device."""

from typing import Any

import pytest

from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.store import StoreWrites
from tests.support.api import Api
from tests.support.clocks import START

BASE = "/api/v1/audit"


async def _seqs(api: Api, query: str) -> list[int]:
    page = await api.json("GET", f"{BASE}?order=oldest&{query}")
    return [AuditId.parse(one["id"]).seq for one in page["items"]]


async def test_entries_are_found_by_kind_actor_and_time(api: Api) -> None:
    kinds = (AuditKind.DEVICE_ONLINE, AuditKind.DEVICE_OFFLINE, AuditKind.DEVICE_STALE)
    entries = [AuditEntry(kinds[number % 3], f"edge-{number}", f"actor-{number % 2}") for number in range(30)]
    await api.harness.store.commit(StoreWrites(audit=tuple((START + n // 2, one) for n, one in enumerate(entries))))
    every = await _seqs(api, "limit=1000")
    first = every[-30]
    assert await _seqs(api, "kind=device.online&kind=device.stale&limit=5") == [first + n for n in (0, 2, 3, 5, 6)]
    assert await _seqs(api, "actor=actor-1&kind=device.online") == [first + n for n in (3, 9, 15, 21, 27)]
    assert await _seqs(api, "from=2027-01-15T08:00:05Z&to=2027-01-15T09:00:07%2B01:00") == list(
        range(first + 10, first + 14)
    )
    assert await _seqs(api, "from=2027-01-15T08:00:14Z") == [first + 28, first + 29]
    assert await _seqs(api, "to=2027-01-15T08:00:00Z") == []
    assert await _seqs(api, "from=2030-01-01T00:00:00Z") == []
    assert await _seqs(api, f"after=1-{first + 12}&to=2027-01-15T08:00:07Z") == [first + 13]


async def test_time_and_kinds_of_an_empty_log(api: Api) -> None:
    assert await _seqs(api, "from=2027-01-15T08:00:05Z&kind=device.online") == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("from=2027-01-15T08:00:05", "query.from: a time needs"),
        ("kind=x", "kind"),
        ("after=4711", "query.after"),
        ("after=9999999-1", "query.after"),
    ],
)
async def test_what_is_no_filter_is_told(api: Api, query: str, words: str) -> None:
    answer = await api.json("GET", f"{BASE}?{query}", 422)
    assert words in answer["error"]["message"]


async def test_a_line_that_is_not_there_begins_no_page(api: Api) -> None:
    answer = await api.json("GET", f"{BASE}?after=4194303-999999999999", 404)
    assert "4194303-999999999999" in answer["error"]["message"]


async def test_the_cases_of_a_device(api: Api) -> None:
    path = "/api/v1/devices/edge-1/cases"
    await api.report("edge-1", ports=(23,))
    await api.harness.drain()
    (case,) = (await api.json("GET", path))["items"]
    assert (case["level"], case["by"], case["released_at"], case["proven"]) == ("restricted", "cordon", None, True)
    assert case["seconds"] >= 0
    api.harness.clock.at += 60
    release: dict[str, Any] = {"reason": "mended"}
    await api.json("POST", "/api/v1/quarantine/edge-1/release", 200, release)
    await api.harness.drain()
    api.harness.clock.at += 60
    contain = {"level": "isolated", "reason": "again"}
    await api.json("PUT", "/api/v1/quarantine/edge-1", 200, contain)
    newer, older = (await api.json("GET", path))["items"]
    assert (older["case_id"], older["released_by"]) == (case["case_id"], "operator:tests")
    assert older["released_at"] == "2027-01-15T08:01:00.000Z"
    assert (newer["level"], newer["by"], newer["reason"], newer["released_at"]) == (
        "isolated",
        "operator:tests",
        "again",
        None,
    )
    assert (await api.json("GET", "/api/v1/devices/nobody/cases", 404))["error"]["code"] == "device_unknown"
