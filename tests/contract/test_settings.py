"""Settings, sources and listings as setup, audit, drift and access rules use them; everything is restored."""

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from controller.adapters.emqx.client.hocon import read_hocon
from tests.contract.target import RULES, Lab, allow, deny, fails_as
from tests.support.waiting import wait_for

ZONE = "/configs/global_zone"
AUTO_SUBSCRIBE = "/mqtt/auto_subscribe"
SETTINGS = "/authorization/settings"
SOURCES = "/authorization/sources"
WHO = "nobody-of-the-contract"


@pytest.fixture
def zone(lab: Lab) -> Iterator[dict[str, Any]]:
    """The whole global zone, restored afterwards."""
    before: dict[str, Any] = lab.api.get(ZONE).json()
    yield copy.deepcopy(before)
    assert lab.api.put(ZONE, json=before).status_code == 200


@pytest.fixture
def settings(lab: Lab) -> Iterator[dict[str, Any]]:
    """The settings of authorization, restored afterwards."""
    before: dict[str, Any] = lab.api.get(SETTINGS).json()
    yield dict(before)
    assert lab.api.put(SETTINGS, json=before).status_code == 200


def test_the_zone_is_read_changed_and_written_back_whole(lab: Lab, zone: dict[str, Any]) -> None:
    changed = {**zone, "mqtt": {**zone["mqtt"], "max_inflight": 1000}}
    answer = lab.api.put(ZONE, json=changed)
    assert answer.status_code == 200, answer.text
    assert lab.api.get(ZONE).json() == changed


def test_a_zone_that_is_not_whole_or_not_valid_is_refused(lab: Lab, zone: dict[str, Any]) -> None:
    alone = fails_as("zone, one section alone", lab.api.put(ZONE, json={"mqtt": zone["mqtt"]}))
    assert "required_field" in alone
    wrong = {**zone, "mqtt": {**zone["mqtt"], "max_inflight": "many"}}
    assert "mqtt.max_inflight" in fails_as("zone, wrong value", lab.api.put(ZONE, json=wrong))
    unknown = lab.api.put(ZONE, json={**zone, "nosuch": {}})
    assert (unknown.status_code, unknown.json()["code"]) == (500, "INTERNAL_ERROR")
    assert lab.api.get(ZONE).json() == zone


def test_a_queue_that_outgrows_the_heap_ends_the_session(lab: Lab, zone: dict[str, Any]) -> None:
    """With `force_shutdown` at its default, at about 17,500 messages; an ordinary client between 20,000 and 22,500."""
    assert zone["force_shutdown"] == {"enable": True, "max_heap_size": "32MB", "max_mailbox_size": 1000}
    assert lab.api.put(ZONE, json={**zone, "mqtt": {**zone["mqtt"], "max_mqueue_len": 100_000}}).status_code == 200
    away, topic = lab.enter("away", clean=False, expiry=3600), f"{lab.prefix}/up"
    away.subscribe(topic)
    away.leave()
    lab.until_known(away.clientid, connected=False)
    path = f"/clients/{away.clientid}"
    batch = [{"topic": topic, "payload": "x" * 100, "qos": 1}] * 1000
    for _ in range(15):
        lab.api.post("/publish/bulk", json=batch)
    assert lab.api.get(path).json()["mqueue_len"] == 15_000
    for _ in range(10):
        lab.api.post("/publish/bulk", json=batch)
    wait_for(lambda: lab.api.get(path).status_code == 404, "the session is gone")
    again = lab.probe("away", clean=False, expiry=3600)
    assert not again.connect().session_present
    again.nothing()


def test_configured_subscriptions_are_made_at_connect_whatever_the_rules_say(lab: Lab) -> None:
    before = lab.api.get(AUTO_SUBSCRIBE).json()
    row = {"topic": f"{lab.prefix}/${{clientid}}/in", "qos": 1, "rh": 0, "rap": 0, "nl": 0}
    device, sender = lab.probe("dev"), lab.enter("sender")
    topic = f"{lab.prefix}/{device.clientid}/in"
    lab.put_rules(device.clientid, deny("#"))
    try:
        answer = lab.api.put(AUTO_SUBSCRIBE, json=[*before, row])
        assert (answer.status_code, answer.json()[-1]) == (200, row)
        device.enter()
        lab.until_subscribed(device.clientid, topic)
        assert device.subscribe(topic) == [135]
        sender.publish(topic, "in spite of the rules")
        assert device.message().text == "in spite of the rules"
    finally:
        assert lab.api.put(AUTO_SUBSCRIBE, json=before).json() == before


def test_the_cookie_is_in_the_text_of_the_node_section_and_not_in_the_json(lab: Lab) -> None:
    answer = lab.api.get("/configs", params={"key": "node"})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert answer.text.startswith("node {\n")
    assert "\n  cookie = " in answer.text
    as_json = lab.api.get("/configs", headers={"accept": "application/json"})
    assert as_json.status_code == 200
    assert "node" not in as_json.json()


def test_a_node_lists_its_own_ports(cluster: Lab) -> None:
    """A client that looks for a listener has to ask the node that it connects to."""
    for number, endpoint in enumerate(cluster.broker.endpoints):
        rows = cluster.api_of(number).get("/listeners").json()
        ports = [int(str(row["bind"]).rpartition(":")[2]) for row in rows if row["type"] in ("tcp", "ssl")]
        assert endpoint.port in ports


def test_the_cluster_names_every_node_whichever_is_asked(cluster: Lab) -> None:
    answers = [api.get("/cluster").json() for api in cluster.apis]
    assert {answer["self"] for answer in answers} <= set(answers[0]["nodes"])
    assert {tuple(sorted(answer["nodes"])) for answer in answers} == {tuple(sorted(answers[0]["nodes"]))}


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


def test_the_configuration_has_the_listeners_settings_too(lab: Lab) -> None:
    text = lab.api.get("/configs", params={"key": "listeners"}).text
    section = read_hocon(text)["listeners"]
    for row in lab.api.get("/listeners").json():
        kind, _, name = row["id"].partition(":")
        told, configured = lab.api.get(f"/listeners/{row['id']}").json(), section[kind][name]
        for key in ("enable", "enable_authn", "zone"):
            assert str(configured[key]) == str(told[key]), (row["id"], key)
        for key in ("verify", "fail_if_no_peer_cert") if row["type"] in ("ssl", "wss") else ():
            assert configured["ssl_options"][key] == told["ssl_options"][key], (row["id"], key)


def test_a_wrong_dashboard_login_has_a_code_of_its_own(lab: Lab) -> None:
    # Once, for an unknown user: five failures in five minutes lock a user.
    answer = httpx.post(
        f"{lab.broker.api_urls[0]}/api/v5/login",
        json={"username": WHO, "password": "not-the-password"},
        trust_env=False,
        timeout=15,
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "BAD_USERNAME_OR_PWD")
