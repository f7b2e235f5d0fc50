"""Rules over events of clients: what a failed login, a ban and a denied access tell, and what they do not."""

import json
from dataclasses import replace
from typing import Any

from tests.contract.target import Lab, answers_as, deny, fails_as, same_shape
from tests.support.mqtt_probe import Probe

AUTHN, CONNACK, AUTHZ = "client_check_authn_complete", "client_connack", "client_check_authz_complete"
_ROW = {"event": "", "timestamp": 0, "node": "", "clientid": "", "username": "", "client_attrs": {}}


def _watch(lab: Lab) -> Probe:
    watcher = lab.enter("watcher")
    topic = f"{lab.prefix}/events/#"
    watcher.subscribe(topic)
    lab.until_subscribed(watcher.clientid, topic)
    return watcher


def _next(watcher: Probe) -> tuple[str, dict[str, Any]]:
    message = watcher.message()
    row: dict[str, Any] = json.loads(message.payload)
    return message.topic.rsplit("/", 1)[1], row


def _about(lab: Lab, clientid: str, *, failed: str) -> str:
    return f" WHERE clientid = '{clientid}' AND {failed}"


def test_a_rule_is_made_read_and_deleted(lab: Lab) -> None:
    rule = lab.make_event_rule(AUTHZ, " WHERE result = 'deny'")
    answers_as("rule, read", lab.api.get(f"/rules/{rule}"))
    rows = lab.api.get("/rules", params={"page": 1, "limit": 1000}).json()["data"]
    assert rule in [row["id"] for row in rows]
    answers_as("rule, deleted", lab.api.delete(f"/rules/{rule}"))
    fails_as("rule, deleted again", lab.api.delete(f"/rules/{rule}"))


def test_a_wrong_password_is_an_event_of_the_check_and_one_of_the_answer(lab: Lab) -> None:
    watcher, name = _watch(lab), lab.name("guesser")
    lab.make_event_rule(AUTHN, _about(lab, name, failed="reason_code != 'success'"))
    lab.make_event_rule(CONNACK, _about(lab, name, failed="reason_code != 'success'"))
    endpoint = lab.endpoint()
    wrong = replace(endpoint, password="not the password")
    assert lab.probe("guesser", endpoint=wrong).connect().code == 134
    seen = dict(_next(watcher) for _ in range(1 if lab.broker.hides_connack_events else 2))
    check = seen["client.check_authn_complete"]
    same_shape({**_ROW, "peername": "", "reason_code": "", "is_superuser": False, "is_anonymous": False}, check)
    assert (check["reason_code"], check["username"]) == ("bad_username_or_password", endpoint.username)
    if not lab.broker.hides_connack_events:
        answer = seen["client.connack"]
        assert (answer["reason_code"], answer["clientid"]) == ("bad_username_or_password", name)
        assert (answer["clean_start"], answer["proto_ver"]) == (True, 5)
    watcher.nothing()


def test_a_ban_is_an_event_of_the_answer_alone(lab: Lab) -> None:
    watcher, name = _watch(lab), lab.name("banned")
    lab.make_event_rule(AUTHN, _about(lab, name, failed="reason_code != 'success'"))
    lab.make_event_rule(CONNACK, _about(lab, name, failed="reason_code != 'success'"))
    lab.ban("clientid", name)
    assert lab.probe("banned").connect().code == 138
    if not lab.broker.hides_connack_events:
        topic, row = _next(watcher)
        assert (topic, row["reason_code"], row["clientid"]) == ("client.connack", "banned", name)
    watcher.nothing()


def test_denied_access_is_an_event_each_time_also_from_the_cache(lab: Lab) -> None:
    watcher, device = _watch(lab), lab.enter("device")
    lab.make_event_rule(AUTHZ, _about(lab, device.clientid, failed="result = 'deny'"))
    lab.put_rules(device.clientid, deny(f"{lab.prefix}/closed"))
    lab.clear_cache(device.clientid)
    topic = f"{lab.prefix}/closed"
    for source in ("built_in_database", "cache"):
        assert device.publish(topic) == 135
        _, row = _next(watcher)
        same_shape({**_ROW, "peerhost": "", "topic": "", "action": "", "authz_source": "", "result": ""}, row)
        assert (row["action"], row["topic"], row["result"]) == ("publish", topic, "deny")
        assert row["authz_source"] == source
    device.subscribe(topic)
    assert _next(watcher)[1]["action"] == "subscribe"
    assert device.publish(f"{lab.prefix}/open") in (0, 16)
    watcher.nothing()
