"""Finding devices, looking at one, labelling it."""

import base64

import pytest

from controller.domain.audit_kinds import AuditKind
from tests.support.api import Api

BASE = "/api/v1/devices"


async def _ids(api: Api, query: str) -> list[str]:
    page = await api.json("GET", f"{BASE}?{query}")
    return [one["device_id"] for one in page["items"]]


async def test_list_filters_and_pages(api: Api) -> None:
    for number in range(5):
        await api.report(f"edge-{number}", ports=(23,) if number == 3 else ())
    await api.harness.timers.tick()
    api.harness.clock.at += 301
    await api.report("edge-0", seq=2)
    await api.harness.timers.tick()
    assert await _ids(api, "") == [f"edge-{number}" for number in range(5)]
    assert await _ids(api, "level=restricted") == ["edge-3"]
    assert await _ids(api, "rule=telnet") == ["edge-3"]
    assert await _ids(api, "rule=p/telnet") == ["edge-3"]
    assert await _ids(api, "rule=p/docker") == []
    assert await _ids(api, "stale=false") == ["edge-0"]
    assert await _ids(api, "stale=true&limit=2&offset=1") == ["edge-2", "edge-3"]
    assert await _ids(api, "search=EDGE-4") == ["edge-4"]
    page = await api.json("GET", f"{BASE}?limit=2")
    assert (page["total"], page["limit"], page["offset"], len(page["items"])) == (5, 2, 0, 2)


async def test_lists_are_filtered_and_sorted_by_what_a_device_fails(api: Api) -> None:
    await api.report("edge-1", ports=(23,))
    await api.report("edge-2", ports=(23, 2375))
    api.harness.clock.at += 60
    await api.report("edge-3")
    await api.json("PUT", f"{BASE}/edge-3/labels", body={"device_class": "press", "tags": ["hall-3"]})
    waiver = {"rule": "p/telnet", "owner": "ada", "reason": "known", "for": "1h", "device": "edge-1"}
    await api.json("POST", "/api/v1/waivers", 201, waiver)
    assert await _ids(api, "rule=telnet&waived=true") == ["edge-1"]
    assert await _ids(api, "severity=high&waived=false") == ["edge-2"]
    assert await _ids(api, "severity=critical") == []
    assert await _ids(api, "result=unknown") == []
    assert (
        await _ids(api, "class=press") == await _ids(api, "tag=hall-3") == await _ids(api, "search=HALL") == ["edge-3"]
    )
    assert await _ids(api, "agent=1.0&online=true") == []
    assert await _ids(api, "pending=true") == []
    assert await _ids(api, "seen_before=2027-01-15T08:00:30Z") == ["edge-1", "edge-2"]
    assert await _ids(api, "seen_before=2027-01-15T09:00:30%2B01:00&limit=1") == ["edge-1"]
    assert await _ids(api, "sort=-failing") == ["edge-2", "edge-1", "edge-3"]
    assert await _ids(api, "sort=-last_seen&limit=1") == ["edge-3"]
    assert await _ids(api, "sort=level") == ["edge-3", "edge-1", "edge-2"]
    contained = await api.json("GET", "/api/v1/quarantine?sort=-level")
    assert [one["device_id"] for one in contained["items"]] == ["edge-2", "edge-1"]


async def test_a_page_goes_on_in_its_own_order_only(api: Api) -> None:
    for number in range(5):
        await api.report(f"edge-{number}", ports=(23,) if number % 2 else ())
    found: list[str] = []
    after: str | None = ""
    last: str | None = None
    while after is not None:
        page = await api.json("GET", f"{BASE}?sort=-failing&limit=2{after and f'&after={after}'}")
        found += [one["device_id"] for one in page["items"]]
        after, last = page["next"], after
    assert found == ["edge-3", "edge-1", "edge-4", "edge-2", "edge-0"]
    for wrong in (f"sort=failing&after={last}", "sort=class&after=edge-1", "sort=class&after=W10%3D"):
        answer = await api.json("GET", f"{BASE}?{wrong}", 422)
        assert "`next` of a page" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("sort", "rest"),
    [
        *(("failing", f'{value},"d"') for value in ("1" + "0" * 30, "NaN", "Infinity", '"x"', "null")),
        ("last_seen", '1.5,"\\ud800"'),
        ("class", '"\\ud800","d"'),
        ("class", '1,"d"'),
    ],
)
async def test_a_key_of_no_page_is_refused(api: Api, sort: str, rest: str) -> None:
    await api.report("edge-1")
    key = base64.urlsafe_b64encode(f'["{sort}",{rest}]'.encode()).decode()
    assert (await api.json("GET", f"{BASE}?sort={sort}&after={key}", 422))["error"]["code"] == "invalid"


async def test_the_fleet_in_numbers(api: Api) -> None:
    await api.report("edge-1", ports=(23,))
    await api.report("edge-2", ports=(23, 2375))
    await api.report("edge-3")
    await api.json("PUT", f"{BASE}/edge-3/labels", body={"device_class": "press", "tags": ["a", "b"]})
    found = await api.json("GET", "/api/v1/fleet")
    rules = [(one["rule"], one["severity"], one["mode"], one["failing"]) for one in found.pop("rules")]
    assert rules == [("p/telnet", "high", "enforce", 2), ("p/docker", "high", "enforce", 1)]
    assert found == {
        "devices": 3,
        "levels": {"none": 1, "restricted": 1, "isolated": 1},
        "stale": 0,
        "presence": {"online": 0, "offline": 0, "unknown": 3},
        "pending": 0,
        "not_read": 0,
        "classes": [{"name": "press", "devices": 1}],
        "tags": [{"name": "a", "devices": 1}, {"name": "b", "devices": 1}],
        "unknown_reasons": [],
    }


@pytest.mark.parametrize(
    "query",
    [
        "sort=size",
        "seen_before=yesterday",
        "seen_before=2027-01-15T08:00:30",
        "severity=bad",
        "limit=0",
        "limit=1001",
        "offset=-1",
        "level=banned",
        "search=%01",
        f"search={'x' * 201}",
    ],
)
async def test_bounds_are_held(api: Api, query: str) -> None:
    answer = await api.json("GET", f"{BASE}?{query}", 422)
    assert answer["error"]["code"] == "invalid"
    assert query.partition("=")[0] in answer["error"]["message"]


async def test_show_tells_why(api: Api) -> None:
    await api.report("edge-1", ports=(23,))
    await api.harness.drain()
    found = await api.json("GET", f"{BASE}/edge-1")
    assert found["level"] == "restricted"
    assert found["case"]["causes"] == ["p/telnet"]
    assert found["case"]["proven"] is True
    assert found["case"]["opened_at"] == "2027-01-15T08:00:00.000Z"
    assert found["case"]["until_released"] is False
    assert found["not_satisfied"] == {"fail": 1}
    assert [(one["rule"], one["result"], one["severity"]) for one in found["findings"]] == [
        ("p/telnet", "fail", "high")
    ]
    kinds = [line["kind"] for line in found["timeline"]]
    assert (
        kinds.index(AuditKind.REPORT_FIRST_ACCEPTED)
        < kinds.index(AuditKind.CONTAINMENT_DECIDED)
        < kinds.index(AuditKind.CONTAINMENT_PROVEN)
    )
    assert found["commands"][0]["action"] == "service.disable"
    assert found["recent_commands"][0]["params"] == {"name": "telnetd"}
    assert found["report"]["seq"] == 1


async def test_show_of_a_device_that_never_reported(api: Api) -> None:
    answer = await api.json("GET", f"{BASE}/nobody", 404)
    assert answer == {"error": {"code": "device_unknown", "message": "no device nobody has ever reported"}}


async def test_report_as_it_was_accepted(api: Api) -> None:
    await api.report("edge-1", ports=(22,))
    found = await api.json("GET", f"{BASE}/edge-1/report")
    assert found["sockets"]["listening"][0]["port"] == 22
    assert found["firewall"] is None


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "../../etc/passwd"])
async def test_label_of_an_unknown_time_zone_is_refused(api: Api, zone: str) -> None:
    await api.report("edge-1")
    labels = {"tags": ["ring:test", f"tz:{zone}"]}
    answer = await api.json("PUT", "/api/v1/devices/edge-1/labels", 422, labels)
    assert "no time zone" in str(answer)
    await api.json("PUT", "/api/v1/devices/edge-1/labels", 200, {"tags": ["tz:Europe/Berlin"]})


async def test_labels(api: Api) -> None:
    await api.report("edge-1")
    found = await api.json("PUT", f"{BASE}/edge-1/labels", body={"device_class": "lab", "tags": ["a/b", "a/b", "c"]})
    assert (found["device_class"], found["tags"]) == ("lab", ["a/b", "c"])
    found = await api.json("PUT", f"{BASE}/edge-1/labels", body={"tags": []})
    assert (found["device_class"], found["tags"]) == ("lab", [])
    (line,) = await api.harness.store.audit(device_id="edge-1", kind=AuditKind.DEVICE_LABELLED, limit=1)
    assert line.entry.actor == "operator:tests"
    assert line.entry.detail == {
        "device_class": "lab", "tags": [], "before": {"device_class": "lab", "tags": ["a/b", "c"]}}  # fmt: skip
    await api.json("PUT", f"{BASE}/edge-1/labels", 422, body={"tags": ["with blank"]})
    await api.json("PUT", f"{BASE}/edge-1/labels", 422, body={"klass": "typo"})
    await api.json("PUT", f"{BASE}/nobody/labels", 404, body={"tags": []})
