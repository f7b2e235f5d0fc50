"""Retained messages, wills, presence, subscription options, and publishing over HTTP."""

import json
from typing import Any

import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.contract.target import Lab, answers_as, fails_as, same_shape
from tests.support.mqtt_probe import Probe
from tests.support.waiting import wait_for

_CONNECTED: dict[str, Any] = {
    "username": "lab", "ts": 1, "sockport": 1, "protocol": "mqtt", "proto_ver": 5, "proto_name": "MQTT",
    "keepalive": 60, "ipaddress": "127.0.0.1", "expiry_interval": 0, "connected_at": 1, "clientid": "x",
    "clean_start": True,
}  # fmt: skip
_DISCONNECTED: dict[str, Any] = {
    "username": "lab", "ts": 1, "sockport": 1, "reason": "normal", "protocol": "mqtt", "proto_ver": 5,
    "proto_name": "MQTT", "ipaddress": "127.0.0.1", "disconnected_at": 1, "connected_at": 1, "clientid": "x",
}  # fmt: skip


def _retained(receiver: Probe, text: str) -> None:
    message = receiver.message()
    assert (message.text, message.retain) == (text, True)


@pytest.mark.parametrize("version", [5, 4])
def test_a_retained_message_is_given_to_later_subscribers(lab: Lab, version: int) -> None:
    topic = lab.retains(f"{lab.prefix}/state")
    sender, watcher = lab.enter("sender"), lab.enter("watcher")
    watcher.subscribe(topic)
    sender.publish(topic, "on", retain=True)
    live = watcher.message()
    assert (live.text, live.retain) == ("on", False)
    late = lab.enter("late", version=version)
    late.subscribe(f"{lab.prefix}/+")
    _retained(late, "on")
    sender.publish(topic, "", retain=True)
    assert late.message().text == ""
    nobody = lab.enter("nobody")
    nobody.subscribe(topic)
    nobody.nothing()


def test_retain_handling(lab: Lab) -> None:
    topic = lab.retains(f"{lab.prefix}/state")
    lab.enter("sender").publish(topic, "on", retain=True)
    receiver = lab.enter("receiver")
    receiver.subscribe(topic, options=SubscribeOptions(qos=1, retainHandling=2))
    receiver.nothing()
    receiver.subscribe(topic, options=SubscribeOptions(qos=1, retainHandling=1))
    receiver.nothing()
    receiver.unsubscribe(topic)
    receiver.subscribe(topic, options=SubscribeOptions(qos=1, retainHandling=1))
    _retained(receiver, "on")
    receiver.subscribe(topic, options=SubscribeOptions(qos=1, retainHandling=0))
    _retained(receiver, "on")


def test_retain_as_published_and_no_local(lab: Lab) -> None:
    topic = lab.retains(f"{lab.prefix}/state")
    receiver, sender = lab.enter("receiver"), lab.enter("sender")
    receiver.subscribe(topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
    sender.subscribe(topic, options=SubscribeOptions(qos=1, noLocal=True))
    sender.publish(topic, "on", retain=True)
    _retained(receiver, "on")
    sender.nothing()


def test_a_leading_wildcard_does_not_reach_dollar_topics(lab: Lab) -> None:
    receiver = lab.enter("receiver")
    assert receiver.subscribe("#", "+/#") == [1, 1]
    lab.enter("other").publish(f"$private/{lab.prefix}/t")
    lab.enter("third").publish(f"{lab.prefix}/t", "plain")
    mine = [m.topic for m in receiver.drain() if lab.prefix in m.topic and not m.topic.startswith("$SYS")]
    assert set(mine) == {f"{lab.prefix}/t"}


def test_unsubscribing(lab: Lab) -> None:
    receiver = lab.enter("receiver")
    receiver.subscribe(f"{lab.prefix}/t")
    assert receiver.unsubscribe(f"{lab.prefix}/t") == [0]
    assert receiver.unsubscribe(f"{lab.prefix}/t") == [17]
    assert lab.enter("other").publish(f"{lab.prefix}/t") == 16


def test_a_delayed_will_is_not_sent_when_the_client_comes_back(lab: Lab) -> None:
    topic = f"{lab.prefix}/will"
    watcher = lab.enter("watcher")
    watcher.subscribe(topic)
    for back in (True, False):
        device = lab.probe("dev", clean=False, expiry=60)
        device.will(topic, f"back={back}", delay=1)
        device.enter()
        device.drop()
        if back:
            lab.enter("dev", clean=False, expiry=60)
            watcher.nothing(1.5)
    assert watcher.message().text == "back=False"


def test_a_will_is_sent_at_once_when_the_session_ends_with_the_connection(lab: Lab) -> None:
    topic = f"{lab.prefix}/will"
    watcher = lab.enter("watcher")
    watcher.subscribe(topic)
    device = lab.probe("dev")
    device.will(topic, "ended", delay=3600)
    device.enter()
    device.drop()
    assert watcher.message().text == "ended"


def test_a_delayed_message_waits(lab: Lab) -> None:
    topic = f"{lab.prefix}/later"
    watcher, sender = lab.enter("watcher"), lab.enter("sender")
    watcher.subscribe(topic)
    sender.publish(f"$delayed/1/{topic}", "later")
    watcher.nothing(0.5)
    assert watcher.message().text == "later"


def _watch_presence(lab: Lab, *names: str) -> Probe:
    watcher = lab.enter("watcher", node=1)
    topics = [f"$SYS/brokers/+/clients/{lab.name(name)}/+" for name in names]
    assert watcher.subscribe(*topics) == [1] * len(topics)
    for topic in topics:
        lab.until_subscribed(watcher.clientid, topic)
    return watcher


def _presence(watcher: Probe, event: str) -> dict[str, Any]:
    message = watcher.message()
    assert message.topic.endswith(f"/{event}")
    assert (message.qos, message.retain) == (0, False)
    row: dict[str, Any] = json.loads(message.payload)
    return row


def test_presence_of_a_connect_and_a_disconnect(lab: Lab) -> None:
    watcher = _watch_presence(lab, "seen")
    device = lab.enter("seen")
    row = _presence(watcher, "connected")
    same_shape(_CONNECTED, row)
    assert (row["clientid"], row["clean_start"], row["keepalive"]) == (device.clientid, True, 60)
    device.leave()
    row = _presence(watcher, "disconnected")
    same_shape(_DISCONNECTED, row)
    assert row["reason"] == "normal"


def test_presence_of_a_ban_and_not_of_a_refused_connection(lab: Lab) -> None:
    watcher = _watch_presence(lab, "seen")
    device = lab.enter("seen")
    _presence(watcher, "connected")
    lab.ban("clientid", device.clientid)
    assert _presence(watcher, "disconnected")["reason"] == "kicked"
    assert lab.probe("seen").connect().code == 138
    watcher.nothing()


@pytest.mark.parametrize(("clean", "reason"), [(True, "discarded"), (False, "takenover")])
def test_presence_of_a_take_over(lab: Lab, clean: bool, reason: str) -> None:
    watcher = _watch_presence(lab, "twin")
    lab.enter("twin", node=0)
    _presence(watcher, "connected")
    lab.enter("twin", node=2, clean=clean)
    events = [watcher.message() for _ in range(2)]
    # The two come from two nodes, so the broker does not guarantee their order.
    by_name = {m.topic.rsplit("/", 1)[1]: json.loads(m.payload) for m in events}
    assert by_name["disconnected"]["reason"] == reason
    assert set(by_name) == {"connected", "disconnected"}


def test_publishing_over_http(lab: Lab) -> None:
    topic, nobody = f"{lab.prefix}/api", f"{lab.prefix}/nobody"
    device = lab.enter("dev")
    device.subscribe(topic)
    answers_as("publish", lab.api.post("/publish", json={"topic": topic, "qos": 1, "payload": "hello"}))
    assert device.message().text == "hello"
    unheard = lab.api.post("/publish", json={"topic": nobody, "qos": 1, "payload": "x"})
    assert answers_as("publish, nobody listens", unheard)["reason_code"] == 16
    wild = lab.api.post("/publish", json={"topic": f"{lab.prefix}/#", "payload": "x"})
    fails_as("publish to a wildcard", wild)
    body = {
        "topic": topic,
        "qos": 1,
        "payload": "aGk=",
        "payload_encoding": "base64",
        "properties": {"message_expiry_interval": 60, "user_properties": {"k": "v"}},
    }
    answers_as("publish with properties", lab.api.post("/publish", json=body))
    message = device.message()
    assert message.text == "hi"
    assert message.properties.UserProperty == [("k", "v")]
    bulk = [{"topic": topic, "payload": "a", "qos": 1}, {"topic": nobody, "payload": "b"}]
    rows = answers_as("publish bulk", lab.api.post("/publish/bulk", json=bulk))
    assert rows[1]["reason_code"] == 16
    assert device.message().text == "a"


def test_publishing_over_http_to_an_absent_session(lab: Lab) -> None:
    topic = f"{lab.prefix}/api"
    device = lab.enter("dev", clean=False, expiry=60)
    device.subscribe(topic)
    device.leave()
    lab.until_known(device.clientid, connected=False)
    body = {"topic": topic, "qos": 1, "payload": "hello"}
    wait_for(lambda: lab.api.post("/publish", json=body).status_code == 200, "200 for an absent session")
