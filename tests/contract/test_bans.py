"""Bans: refused connections, disconnects, and the listing."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.target import FAR, Lab, answers_as, fails_as
from tests.support.mqtt_probe import Endpoint
from tests.support.waiting import wait_for


def _soon(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("version", "code", "refusal"), [(5, 152, 138), (4, None, 135)])
def test_a_ban_by_client_id_disconnects_and_refuses_the_next_connection(
    lab: Lab, version: int, code: int | None, refusal: int
) -> None:
    device = lab.enter("dev", version=version)
    recorded = "ban clientid (live, MQTT 5)" if version == 5 else "ban clientid (live, MQTT 4)"
    answers_as(recorded, lab.ban("clientid", device.clientid))
    assert device.ended().code == code
    fails_as("kick absent", lab.kick(device.clientid))
    for node in range(len(lab.broker.endpoints)):
        again = lab.probe("dev", node=node, version=version)
        # paho names the 3.1.1 return code 5 as MQTT 5 does: not authorized, 135
        assert again.connect().code == refusal
        assert again.ended().code is None
    answers_as("unban", lab.unban("clientid", device.clientid))
    assert lab.probe("dev", version=version).connect().code == 0


def test_a_ban_through_one_node_cuts_a_client_of_another(cluster: Lab) -> None:
    device = cluster.enter("dev", node=len(cluster.broker.endpoints) - 1)
    assert cluster.ban("clientid", device.clientid, node=0).status_code == 200
    assert device.ended().code == 152


def test_a_ban_is_checked_before_the_password(lab: Lab) -> None:
    good = lab.endpoint()
    bad = Endpoint(good.host, good.port, good.username, "not the password")
    if good.username is not None:
        assert lab.probe("dev", endpoint=bad).connect().code == 134
    lab.ban("clientid", lab.name("dev"))
    assert lab.probe("dev", endpoint=bad).connect().code == 138


def test_a_ban_by_user_name_leaves_the_connection_alone(lab: Lab) -> None:
    user = lab.name("user")
    answers_as("add user", lab.add_user(user, "pass-1"))
    base = lab.endpoint()
    own = Endpoint(base.host, base.port, user, "pass-1")
    device = lab.enter("dev", endpoint=own)
    answers_as("ban username (live)", lab.ban("username", user, by=None, reason=None))
    assert device.alive()
    assert device.publish(f"{lab.prefix}/nobody") == 16
    assert lab.kick(device.clientid).status_code == 204
    assert device.ended().code == 152
    again = lab.probe("dev", endpoint=own)
    assert again.connect().code == 138
    assert again.ended().code is None


def test_a_second_ban_fails_with_the_existing_row(lab: Lab) -> None:
    who = lab.name("dev")
    first = lab.ban("clientid", who).json()
    again = lab.ban("clientid", who, reason="again", until=None)
    assert json.loads(fails_as("ban the same again", again)) == first


def test_a_ban_without_end_is_forever(lab: Lab) -> None:
    row = answers_as("ban without until", lab.ban("clientid", lab.name("dev"), until=None, by=None, reason=None))
    assert (row["until"], row["by"], row["reason"]) == ("infinity", "mgmt_api", "")


def test_bans_that_cannot_be_made(lab: Lab) -> None:
    past = lab.ban("clientid", lab.name("dev"), until="2020-01-01T00:00:00Z", by=None, reason=None)
    fails_as("ban until the past", past)
    who = lab.name("dev")
    fails_as("ban until bad time", lab.ban("clientid", who, until="soon"))
    fails_as("ban as bad kind", lab.ban("serial", "x", until=None))
    fails_as("ban peerhost bad address", lab.ban("peerhost", "nope", until=None))
    fails_as("ban without who", lab.api.post("/banned", json={"as": "clientid"}))
    fails_as("bad JSON", lab.api.post("/banned", content=b"{", headers={"content-type": "application/json"}))
    fails_as("empty body", lab.api.post("/banned", content=b""))
    assert lab.api.get("/banned", params={"clientid": who}).json()["data"] == []


def test_an_expired_ban_refuses_nobody_and_may_be_replaced(lab: Lab) -> None:
    who = lab.name("dev")
    answers_as("ban for two seconds", lab.ban("clientid", who, until=_soon(2), by=None, reason=None))
    assert lab.probe("dev").connect().code == 138
    wait_for(lambda: lab.probe("dev").connect().code == 0, "the ban ends")
    assert lab.ban("clientid", who).status_code == 200
    assert lab.probe("dev").connect().code == 138


def test_unbanning_twice(lab: Lab) -> None:
    who = lab.name("dev")
    lab.ban("clientid", who)
    answers_as("unban", lab.unban("clientid", who))
    assert who in fails_as("unban again", lab.unban("clientid", who))


@pytest.mark.parametrize(("kind", "name"), [("clientid_re", "ban clientid_re"), ("username_re", "ban username_re")])
def test_bans_by_pattern_refuse_those_that_match(lab: Lab, kind: str, name: str) -> None:
    pattern = f"^{lab.prefix}-re-.*"
    answers_as(name, lab.ban(kind, pattern, by=None, reason=None))
    user = lab.name("re-user")
    lab.add_user(user, "pass-1")
    base = lab.endpoint()
    endpoint = Endpoint(base.host, base.port, user, "pass-1") if kind == "username_re" else base
    suffix = "other" if kind == "username_re" else "re-dev"
    assert lab.probe(suffix, endpoint=endpoint).connect().code == 138
    assert lab.probe("free").connect().code == 0
    assert lab.unban(kind, pattern).status_code == 204


def test_a_pattern_ban_leaves_connections_alone(lab: Lab) -> None:
    device = lab.enter("re-dev")
    lab.ban("clientid_re", f"^{lab.prefix}-re-.*")
    assert device.alive()


def test_bans_by_address(lab: Lab) -> None:
    net = f"198.51.100.{int(lab.prefix[-2:], 16) & ~3}/30"
    host = f"203.0.113.{int(lab.prefix[-2:], 16)}"
    assert answers_as("ban peerhost_net", lab.ban("peerhost_net", net, by=None, reason=None))["who"] == net
    assert answers_as("ban peerhost", lab.ban("peerhost", host, by=None, reason=None))["who"] == host
    found = lab.api.get("/banned", params={"peerhost": host}).json()
    assert [row["who"] for row in found["data"]] == [host]
    assert lab.unban("peerhost_net", net).status_code == 204
    assert lab.unban("peerhost", host).status_code == 204


def test_the_list_its_filters_and_its_pages(lab: Lab) -> None:
    names = [lab.name(f"dev{n}") for n in range(3)]
    for name in names:
        lab.ban("clientid", name)
    body = answers_as("list bans", lab.api.get("/banned", params={"limit": 100, "page": 1}))
    assert body["meta"]["count"] >= 3
    exact = lab.api.get("/banned", params={"clientid": names[0]}).json()
    assert [row["who"] for row in exact["data"]] == [names[0]]
    assert exact["data"][0]["until"] == FAR.replace("Z", "+00:00")
    like = lab.api.get("/banned", params={"like_clientid": f"^{lab.prefix}-dev"}).json()
    assert sorted(row["who"] for row in like["data"]) == names
    two = lab.api.get("/banned", params={"clientid": names[0], "username": "x"})
    assert (two.status_code, two.json()["code"]) == (400, "BAD_REQUEST")
    ignored = lab.api.get("/banned", params={"who": names[0], "as": "clientid", "limit": 10000}).json()
    assert len(ignored["data"]) >= 3
    seen: set[str] = set()
    for page in range(1, body["meta"]["count"] + 2):
        rows = lab.api.get("/banned", params={"limit": 1, "page": page}).json()["data"]
        seen.update(row["who"] for row in rows)
    assert set(names) <= seen


def test_a_ban_made_on_one_node_is_listed_on_all(cluster: Lab) -> None:
    who = cluster.name("dev")
    cluster.ban("clientid", who, node=0)
    for api in cluster.apis:
        wait_for(lambda api=api: bool(api.get("/banned", params={"clientid": who}).json()["data"]), "listed")  # type: ignore[misc]  # mypy cannot see the default's type


def test_times_may_be_epoch_seconds(lab: Lab) -> None:
    until = int(time.time()) + 3600
    row = lab.ban("clientid", lab.name("dev"), until=until).json()
    assert datetime.fromisoformat(row["until"]).timestamp() == until
