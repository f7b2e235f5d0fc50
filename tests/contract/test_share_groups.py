"""What a share group reorders and loses while its members change: read in the source of 5.8.9, not recorded.

What was recorded of share groups is in `test_after_a_cut` and `test_delivery`.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.target import Lab
from tests.support.mqtt_probe import Probe
from tests.support.waiting import wait_for

WINDOW, QUEUE = 32, 1000
BROKER = "/configs/broker"


def _join(lab: Lab, suffix: str, group: str, **options: Any) -> Probe:
    member = lab.enter(suffix, **options)
    member.subscribe(group)
    lab.until_subscribed(member.clientid, group)
    return member


def _publish(sender: Probe, topic: str, numbers: range) -> None:
    mids = [sender.start_publish(topic, str(number)) for number in numbers]
    assert {sender.published(mid) for mid in mids} == {0}


def test_newer_messages_of_a_device_overtake_those_that_a_leaving_member_held(lab: Lab) -> None:
    topic, group = f"{lab.prefix}/up", f"$share/{lab.prefix}/{lab.prefix}/up"
    leaving = _join(lab, "m0", group, manual_ack=True)
    device = lab.enter("dev")
    _publish(device, topic, range(10))
    leaving.messages(10)
    staying = _join(lab, "m1", group)
    _publish(device, topic, range(10, 20))
    early = [int(message.text) for message in staying.drain()]
    leaving.drop()
    late = [int(message.text) for message in staying.messages(20 - len(early))]
    assert early
    assert min(early) >= 10
    assert min(late) == 0
    assert sorted(early + late) == list(range(20))


def test_a_member_that_is_behind_gets_its_share_all_the_same(lab: Lab) -> None:
    topic, group = f"{lab.prefix}/up", f"$share/{lab.prefix}/{lab.prefix}/up"
    behind = _join(lab, "m0", group, manual_ack=True)
    quick = _join(lab, "m1", group)
    _publish(lab.enter("dev"), topic, range(2 * WINDOW + 16))
    assert len(quick.messages(WINDOW + 8)) == WINDOW + 8
    quick.nothing()
    assert len(behind.messages(WINDOW)) == WINDOW
    wait_for(lambda: _row(lab, behind)["mqueue_len"] == 8, "the rest of its share waits for it")


def test_a_full_queue_of_a_connected_member_drops_the_oldest_message(lab: Lab) -> None:
    topic, group = f"{lab.prefix}/up", f"$share/{lab.prefix}/{lab.prefix}/up"
    behind = _join(lab, "m0", group, manual_ack=True)
    _publish(lab.enter("dev"), topic, range(WINDOW + QUEUE + 50))
    behind.messages(WINDOW)
    wait_for(lambda: _row(lab, behind)["mqueue_dropped"] == 50, "what had no room is counted, and gone")
    assert _row(lab, behind)["mqueue_len"] == QUEUE


def _row(lab: Lab, probe: Probe) -> dict[str, Any]:
    row: dict[str, Any] = lab.api.get(f"/clients/{probe.clientid}").json()
    return row


@pytest.mark.usefixtures("hashed")
def test_a_member_that_resumes_its_session_goes_to_the_end_and_devices_move(lab: Lab) -> None:
    group = f"$share/{lab.prefix}/{lab.prefix}/up/+"
    first = _join(lab, "m0", group, clean=False, expiry=3600)
    second = _join(lab, "m1", group)
    devices = [lab.enter(f"dev{number}") for number in range(8)]

    def published() -> None:
        for number, device in enumerate(devices):
            assert device.publish(f"{lab.prefix}/up/{number}") == 0

    published()
    before = {message.topic for message in first.drain()}
    first.drop()
    lab.until_known(first.clientid, connected=False)
    again = lab.probe("m0", clean=False, expiry=3600)
    assert again.connect().session_present
    published()
    after = {message.topic for message in again.drain()}
    assert len(before) + len(after) == len(second.drain()) == len(devices)
    assert before.isdisjoint(after)


@pytest.fixture
def own_strategy(lab: Lab) -> Iterator[str]:
    """A share group whose messages of one publisher go to one member, whatever holds for other groups."""
    group = f"{lab.prefix}-own"
    before: dict[str, Any] = lab.api.get(BROKER).json()
    groups = {**before.get("shared_subscription_group", {}), group: {"strategy": "hash_clientid"}}
    assert lab.api.put(BROKER, json={**before, "shared_subscription_group": groups}).status_code == 200
    yield group
    assert lab.api.put(BROKER, json=before).status_code == 200


def test_a_group_has_a_strategy_of_its_own(lab: Lab, own_strategy: str) -> None:
    topic = f"{lab.prefix}/up"
    own = [_join(lab, f"o{number}", f"$share/{own_strategy}/{topic}") for number in range(2)]
    others = [_join(lab, f"x{number}", f"$share/{lab.prefix}/{topic}") for number in range(2)]
    _publish(lab.enter("dev"), topic, range(10))
    assert sorted(len(member.drain()) for member in own) == [0, 10]
    assert sorted(len(member.drain()) for member in others) == [5, 5]
