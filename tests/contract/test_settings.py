"""Settings, sources and listings as setup, audit, drift and access rules use them; everything is restored."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.target import RULES, Lab, allow, deny

ZONE = "/configs/global_zone"
SETTINGS = "/authorization/settings"
SOURCES = "/authorization/sources"
WHO = "nobody-of-the-contract"


@pytest.fixture
def zone(lab: Lab) -> Iterator[dict[str, Any]]:
    """The section `mqtt` of the zone, restored afterwards."""
    before: dict[str, Any] = lab.api.get(ZONE).json()["mqtt"]
    yield dict(before)
    assert lab.api.put(ZONE, json={"mqtt": before}).status_code == 200


@pytest.fixture
def settings(lab: Lab) -> Iterator[dict[str, Any]]:
    """The settings of authorization, restored afterwards."""
    before: dict[str, Any] = lab.api.get(SETTINGS).json()
    yield dict(before)
    assert lab.api.put(SETTINGS, json=before).status_code == 200


def test_a_section_of_the_zone_is_read_changed_and_written_back_whole(lab: Lab, zone: dict[str, Any]) -> None:
    changed = {**zone, "max_inflight": 1000, "max_mqueue_len": 100_000}
    answer = lab.api.put(ZONE, json={"mqtt": changed})
    assert answer.status_code == 200, answer.text
    now = lab.api.get(ZONE).json()
    assert now["mqtt"]["max_inflight"] == 1000
    assert now["mqtt"]["max_mqueue_len"] == 100_000
    assert {key: value for key, value in now["mqtt"].items() if zone[key] != value} == {
        "max_inflight": 1000,
        "max_mqueue_len": 100_000,
    }
    assert "flapping_detect" in now, "sections that were not sent stay"


def test_no_match_is_changed_alone(lab: Lab, settings: dict[str, Any]) -> None:
    other = "deny" if settings["no_match"] == "allow" else "allow"
    assert lab.api.put(SETTINGS, json={**settings, "no_match": other}).status_code == 200
    now = lab.api.get(SETTINGS).json()
    assert (now["no_match"], now["cache"]["enable"]) == (other, settings["cache"]["enable"])


def test_a_file_source_is_added_in_front_moved_and_removed(lab: Lab) -> None:
    kinds = [row["type"] for row in lab.api.get(SOURCES).json()["sources"]]
    if "file" in kinds:
        pytest.skip("the broker under test has a file source of its own")
    body = {"type": "file", "enable": False, "rules": "{deny, all}.\n"}
    assert lab.api.post(SOURCES, json=body).status_code == 204
    try:
        assert [row["type"] for row in lab.api.get(SOURCES).json()["sources"]] == ["file", *kinds]
        told = lab.api.get(f"{SOURCES}/file").json()
        assert (told["type"], told["enable"]) == ("file", False)
        assert "{deny, all}" in told["rules"]
        moved = lab.api.post(f"{SOURCES}/built_in_database/move", json={"position": "front"})
        assert moved.status_code == 204
        assert lab.api.get(SOURCES).json()["sources"][0]["type"] == "built_in_database"
    finally:
        assert lab.api.delete(f"{SOURCES}/file").status_code == 204


def _count(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    count = answer.json()["meta"]["count"]
    assert isinstance(count, int)
    return count


def test_a_page_of_one_row_has_the_count_of_all(lab: Lab) -> None:
    page = {"page": 1, "limit": 1}
    bans, rules = (_count(lab.api.get(path, params=page)) for path in ("/banned", f"{RULES}/clients"))
    for number in range(3):
        assert lab.ban("clientid", lab.name(f"count-{number}")).status_code == 200
        assert lab.put_rules(lab.name(f"count-{number}"), deny("#")).status_code == 204
    assert _count(lab.api.get("/banned", params=page)) == bans + 3
    assert _count(lab.api.get(f"{RULES}/clients", params=page)) == rules + 3


def test_rules_of_many_clients_in_one_request_are_all_or_nothing(lab: Lab) -> None:
    names = [lab.name(f"many-{number}") for number in range(3)]
    assert lab.put_rules(names[0], allow("mine/#")).status_code == 204
    for name in names[1:]:
        lab._rules.add(("clients", name))
    body = [{"clientid": name, "rules": [allow("fleet/${clientid}/#", "publish"), deny("#")]} for name in names]
    refused = lab.api.post(f"{RULES}/clients", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "ALREADY_EXISTS")
    assert lab.api.get(f"{RULES}/clients/{names[1]}").status_code == 404, "nothing of it was written"
    assert lab.api.post(f"{RULES}/clients", json=body[1:]).status_code == 204
    rows = lab.api.get(f"{RULES}/clients/{names[1]}").json()["rules"]
    assert [row["topic"] for row in rows] == ["fleet/${clientid}/#", "#"]


def test_placeholders_in_the_rules_of_a_client_are_filled_in(lab: Lab) -> None:
    lab.put_rules(lab.name("filled"), allow("fleet/${clientid}/#", "publish"), deny("#"))
    probe = lab.enter("filled")
    assert probe.publish(f"fleet/{lab.name('filled')}/x") != 135
    assert probe.publish("fleet/somebody/x") == 135


def test_every_listener_has_its_own_answer(lab: Lab) -> None:
    for row in lab.api.get("/listeners").json():
        page = lab.api.get(f"/listeners/{row['id']}")
        assert page.status_code == 200, row["id"]
        told = page.json()
        assert told["id"] == row["id"]
        assert told["type"] == row["type"]
        if row["type"] in ("ssl", "wss"):
            assert {"verify", "fail_if_no_peer_cert"} <= told["ssl_options"].keys()


def test_a_wrong_dashboard_login_has_a_code_of_its_own(lab: Lab) -> None:
    # Once, for an unknown user: five failures in five minutes lock a user.
    answer = httpx.post(
        f"{lab.broker.api_urls[0]}/api/v5/login",
        json={"username": WHO, "password": "not-the-password"},
        trust_env=False,
        timeout=15,
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "BAD_USERNAME_OR_PWD")
