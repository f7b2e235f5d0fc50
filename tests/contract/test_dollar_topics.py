"""Topics that begin with `$` under `deny #`, and client ids that are wildcards."""

from collections.abc import Callable, Iterator

import pytest

from tests.contract.target import RULES, Lab, Rule, allow, deny
from tests.support.mqtt_probe import Probe

DENIED = 135
SETTINGS = "/authorization/settings"
# Client ids under `${clientid}` rules: whether the rule becomes a wildcard, as recorded on 5.8.9.
ODD_IDS = {"+": True, "#": False, "+/#": False, "a/b": False}


@pytest.fixture
def no_match(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Sets what happens where no rule matches; restored afterwards."""
    before = lab.api.get(SETTINGS).json()

    def put(value: str) -> None:
        assert lab.api.put(SETTINGS, json={**before, "no_match": value}).status_code == 200

    yield put
    assert lab.api.put(SETTINGS, json=before).status_code == 200


def _restricted(lab: Lab, *more: Rule) -> Probe:
    device = lab.probe("dev")
    lab.put_rules(device.clientid, *more, allow(f"cordon/v1/{device.clientid}/up/#", "publish"), deny("#"))
    return device.enter()


def _publishable(lab: Lab, foo: str) -> dict[str, bool]:
    """Topics, and whether a restricted device may publish there when `no_match` is `allow`."""
    plain = f"{lab.prefix}/plain"
    return {
        plain: False,
        f"$delayed/1/{plain}": False,
        f"{foo}/x": True,
        f"$delayed/1/{foo}/x": True,
        f"$SYS/{lab.prefix}": True,
        f"$exclusive/{plain}": True,
        f"$queue/{plain}": True,
        f"$file/{lab.prefix}/init": True,
    }


def _subscribable(lab: Lab, foo: str) -> dict[str, bool]:
    plain = f"{lab.prefix}/plain/#"
    return {
        plain: False,
        "#": False,
        f"$share/g/{plain}": False,
        f"$exclusive/{plain}": False,
        f"{foo}/#": True,
        "$SYS/brokers/+/clients/#": True,
        f"$share/g/{foo}/#": True,
        f"$queue/{foo}/#": True,
    }


@pytest.mark.parametrize("value", ["allow", "deny"])
def test_deny_all_leaves_topics_that_begin_with_a_dollar_to_no_match(
    lab: Lab, no_match: Callable[[str], None], value: str
) -> None:
    no_match(value)
    foo = f"${lab.prefix}"
    device = _restricted(lab)
    is_open = value == "allow"
    published = {topic: device.publish(topic) != DENIED for topic in _publishable(lab, foo)}
    assert published == {topic: wild and is_open for topic, wild in _publishable(lab, foo).items()}
    granted = {topic: device.subscribe(topic)[0] < 128 for topic in _subscribable(lab, foo)}
    assert granted == {topic: wild and is_open for topic, wild in _subscribable(lab, foo).items()}


def test_what_a_restricted_device_publishes_under_a_dollar_topic_arrives(
    lab: Lab, no_match: Callable[[str], None]
) -> None:
    no_match("allow")
    foo = f"${lab.prefix}"
    watcher, device = lab.enter("watcher"), _restricted(lab)
    watcher.subscribe(f"{foo}/#")
    for topic in (f"{foo}/x", f"$delayed/1/{foo}/y"):
        device.publish(topic)
    assert [message.topic for message in watcher.messages(2)] == [f"{foo}/x", f"{foo}/y"]


def test_a_deny_rule_for_a_dollar_prefix_closes_that_prefix_alone(lab: Lab, no_match: Callable[[str], None]) -> None:
    no_match("allow")
    foo, bar = f"${lab.prefix}foo", f"${lab.prefix}bar"
    device = _restricted(lab, deny(f"{foo}/#"), deny("$SYS/#"))
    published = [device.publish(f"{first}/x") for first in (foo, "$SYS", bar)]
    assert published == [DENIED, DENIED, 16]
    assert device.subscribe(f"{foo}/#", "$SYS/#", f"{bar}/#") == [DENIED, DENIED, 1]


@pytest.mark.parametrize("clientid", list(ODD_IDS))
def test_a_client_id_that_is_a_wildcard(lab: Lab, clientid: str) -> None:
    is_open = ODD_IDS[clientid] and lab.broker.plus_is_wildcard
    before = lab.api.get(f"{RULES}/all").json()
    own = f"{lab.prefix}/${{clientid}}/up/#"
    try:
        lab.api.post(f"{RULES}/all", json={"rules": [allow(own), deny(f"{lab.prefix}/#"), *before["rules"]]})
        device = lab.odd(clientid)
        assert device.publish(f"{lab.prefix}/other/up/x") == (16 if is_open else DENIED)
        assert device.subscribe(f"{lab.prefix}/+/up/#") == [1 if is_open else DENIED]
    finally:
        lab.api.post(f"{RULES}/all", json=before)


def test_a_client_id_without_wildcards_has_its_own_branch_alone(lab: Lab) -> None:
    before = lab.api.get(f"{RULES}/all").json()
    own = f"{lab.prefix}/${{clientid}}/up/#"
    try:
        lab.api.post(f"{RULES}/all", json={"rules": [allow(own), deny(f"{lab.prefix}/#"), *before["rules"]]})
        device = lab.enter("dev")
        assert device.publish(f"{lab.prefix}/{device.clientid}/up/x") == 16
        assert device.publish(f"{lab.prefix}/other/up/x") == DENIED
        assert device.subscribe(f"{lab.prefix}/+/up/#") == [DENIED]
    finally:
        lab.api.post(f"{RULES}/all", json=before)
