"""Delivery to a controller: the window, the queue, redelivery, share groups, and what a PUBACK means."""

from typing import Any

import pytest

from tests.contract.target import Lab
from tests.support.mqtt_probe import Probe
from tests.support.waiting import wait_for

WINDOW, QUEUE = 32, 1000


def _publish_many(publisher: Probe, topic: str, count: int) -> None:
    """Publish numbered messages, each acknowledged with 0."""
    mids = [publisher.start_publish(topic, str(number)) for number in range(count)]
    assert {publisher.published(mid) for mid in mids} == {0}


def _numbers(probe: Probe, count: int) -> list[int]:
    return [int(message.text) for message in probe.messages(count)]


def test_the_window_is_the_brokers(lab: Lab) -> None:
    topic = f"{lab.prefix}/up"
    controller, device = lab.enter("controller", manual_ack=True, receive_maximum=200), lab.enter("dev")
    controller.subscribe(topic)
    _publish_many(device, topic, WINDOW + 8)
    got = controller.messages(WINDOW)
    controller.nothing()
    controller.acknowledge(got[0])
    assert controller.message().text == str(WINDOW)
    controller.nothing()


def test_a_smaller_receive_maximum_narrows_the_window(lab: Lab) -> None:
    topic = f"{lab.prefix}/up"
    controller, device = lab.enter("controller", manual_ack=True, receive_maximum=5), lab.enter("dev")
    controller.subscribe(topic)
    _publish_many(device, topic, 10)
    controller.messages(5)
    controller.nothing()


@pytest.mark.parametrize("shared", [False, True], ids=["plain", "shared"])
def test_a_resumed_session_gets_all_in_order_on_another_node(lab: Lab, shared: bool) -> None:
    topic = f"{lab.prefix}/up"
    controller = lab.enter("controller", clean=False, expiry=3600, manual_ack=True)
    controller.subscribe(f"$share/{lab.prefix}/{topic}" if shared else topic)
    device = lab.enter("dev")
    _publish_many(device, topic, WINDOW + 18)
    controller.messages(WINDOW)
    controller.drop()
    lab.until_known(controller.clientid, connected=False)
    again = lab.probe("controller", node=1, clean=False, expiry=3600)
    assert again.connect().session_present
    got = again.messages(WINDOW + 18)
    assert [int(message.text) for message in got] == list(range(WINDOW + 18))
    assert [message.dup for message in got] == [True] * WINDOW + [False] * 18


def test_a_full_queue_of_an_absent_session_drops_the_oldest_message(lab: Lab) -> None:
    topic = f"{lab.prefix}/up"
    controller = lab.enter("controller", clean=False, expiry=3600)
    controller.subscribe(topic)
    controller.leave()
    lab.until_known(controller.clientid, connected=False)
    _publish_many(lab.enter("dev"), topic, QUEUE + 500)

    def counted() -> bool:
        row = lab.api.get(f"/clients/{controller.clientid}").json()
        return (row["mqueue_len"], row["mqueue_dropped"]) == (QUEUE, 500)

    wait_for(counted, "the row counts what was dropped")
    again = lab.probe("controller", clean=False, expiry=3600)
    assert again.connect().session_present
    assert _numbers(again, QUEUE) == list(range(500, QUEUE + 500))
    again.nothing()


def test_an_absent_session_of_a_share_group_keeps_its_messages(lab: Lab) -> None:
    topic = f"{lab.prefix}/up"
    members = [lab.enter(f"m{n}", clean=False, expiry=3600) for n in range(2)]
    for member in members:
        member.subscribe(f"$share/{lab.prefix}/{topic}")
    members[0].drop()
    lab.until_known(members[0].clientid, connected=False)
    _publish_many(lab.enter("dev"), topic, 20)
    assert len(members[1].drain()) == 10
    again = lab.probe("m0", clean=False, expiry=3600)
    assert again.connect().session_present
    assert len(again.drain()) == 10


def test_the_messages_of_a_vanished_member_go_to_the_others(lab: Lab) -> None:
    topic = f"{lab.prefix}/up"
    dying = lab.enter("m0", manual_ack=True)
    dying.subscribe(f"$share/{lab.prefix}/{topic}")
    _publish_many(lab.enter("dev"), topic, 10)
    dying.messages(10)
    staying = lab.enter("m1")
    staying.subscribe(f"$share/{lab.prefix}/{topic}")
    lab.until_subscribed(staying.clientid, f"$share/{lab.prefix}/{topic}")
    dying.drop()
    assert sorted(_numbers(staying, 10)) == list(range(10))


@pytest.mark.parametrize(("version", "code"), [(5, 16), (4, 0)])
def test_a_message_without_subscribers_is_acknowledged(lab: Lab, version: int, code: int) -> None:
    assert lab.enter("dev", version=version).publish(f"{lab.prefix}/nobody") == code


@pytest.mark.parametrize("version", [5, 4])
def test_a_queued_message_waits_for_the_session(lab: Lab, version: int) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", version=version, clean=False, expiry=3600)
    device.subscribe(topic)
    device.leave()
    lab.until_known(device.clientid, connected=False)
    assert lab.enter("other").publish(topic, "queued while away") == 0
    again = lab.probe("dev", node=2, version=version, clean=False, expiry=3600)
    assert again.connect().session_present
    message = again.message()
    assert (message.text, message.qos, message.dup) == ("queued while away", 1, False)


def test_a_message_expires_in_the_queue(lab: Lab) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(topic)
    device.leave()
    lab.until_known(device.clientid, connected=False)
    other = lab.enter("other")
    other.publish(topic, "short", MessageExpiryInterval=1)
    other.publish(topic, "long", MessageExpiryInterval=100)
    lab.enter("wait").nothing(2.2)
    again = lab.enter("dev", clean=False, expiry=3600)
    message = again.message()
    assert message.text == "long"
    assert 90 <= message.properties.MessageExpiryInterval < 100
    again.nothing()


def test_a_session_expires(lab: Lab) -> None:
    device = lab.enter("dev", clean=False, expiry=1)
    device.subscribe(f"{lab.prefix}/q")
    device.leave()
    lab.until_gone(device.clientid)
    assert not lab.probe("dev", clean=False, expiry=1).connect().session_present


def test_a_clean_start_ends_the_older_session(lab: Lab) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(topic)
    device.leave()
    again = lab.probe("dev", clean=True, expiry=3600)
    assert not again.connect().session_present
    assert lab.enter("other").publish(topic) == 16


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_quality_of_service_arrives_once(lab: Lab, qos: int) -> None:
    topic = f"{lab.prefix}/t"
    receiver, sender = lab.enter("receiver"), lab.enter("sender")
    assert receiver.subscribe(topic, qos=qos) == [qos]
    assert sender.publish(topic, "once", qos=qos) == 0
    message = receiver.message()
    assert (message.text, message.qos) == ("once", qos)
    receiver.nothing()


def test_properties_are_passed_on(lab: Lab) -> None:
    topic = f"{lab.prefix}/t"
    receiver, sender = lab.enter("receiver"), lab.enter("sender")
    receiver.subscribe(topic)
    extras: dict[str, Any] = {
        "ContentType": "application/json",
        "ResponseTopic": f"{lab.prefix}/answer",
        "CorrelationData": b"42",
        "UserProperty": [("k", "v"), ("k", "w")],
    }
    sender.publish(topic, "x", **extras)
    properties = receiver.message().properties
    assert {name: getattr(properties, name) for name in extras} == extras
