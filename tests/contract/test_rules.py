"""Access rules: when they take effect, and what they cover."""

from itertools import product

import pytest

from tests.contract.target import RULES, Lab, allow, answers_as, deny, fails_as


def _three_rules(clientid: str) -> list[dict[str, object]]:
    """The rules of a restricted device."""
    return [
        allow(f"cordon/v1/{clientid}/up/#", "publish"),
        allow(f"cordon/v1/{clientid}/down/#", "subscribe"),
        deny("#"),
    ]


def test_rule_rows(lab: Lab) -> None:
    who = lab.name("dev")
    rules = [allow(f"cordon/v1/{who}/#"), deny("#")]
    path = f"{RULES}/clients/{who}"
    fails_as("rules for a client: absent", lab.api.get(path))
    answers_as("replace rules of an absent client", lab.put_rules(who, *rules))
    body = answers_as("rules now", lab.api.get(path))
    assert body["rules"] == [{**rule, "qos": [0, 1, 2], "retain": "all"} for rule in rules]
    fails_as("add rules again", lab.post_rules(who, *rules))
    answers_as("replace rules", lab.put_rules(who, *rules))
    answers_as("list rules", lab.api.get(f"{RULES}/clients", params={"limit": 10, "page": 1}))
    answers_as("remove rules", lab.api.delete(path))
    fails_as("remove rules again", lab.api.delete(path))
    answers_as("add rules", lab.post_rules(who, *rules))
    assert answers_as("rules of a client", lab.api.get(path)) == body
    bad = [{"clientid": lab.name("bad"), "rules": [{"topic": "#", "permission": "maybe", "action": "all"}]}]
    fails_as("bad rule", lab.api.post(f"{RULES}/clients", json=bad))
    too_many = [allow(f"t/{n}") for n in range(101)]
    assert lab.put_rules(who, *too_many).status_code == 400
    assert lab.api.get(path).json()["rules"] == body["rules"]


def test_adding_rules_is_all_or_nothing(lab: Lab) -> None:
    old, new = lab.name("old"), lab.name("new")
    lab.put_rules(old, deny("#"))
    rows = [{"clientid": name, "rules": [allow("#")]} for name in (new, old)]
    assert lab.api.post(f"{RULES}/clients", json=rows).status_code == 409
    assert lab.api.get(f"{RULES}/clients/{new}").status_code == 404


def test_rules_for_all_are_replaced_as_a_whole(lab: Lab) -> None:
    before = answers_as("rules for all: read", lab.api.get(f"{RULES}/all"))
    mine = {"topic": f"{lab.prefix}/${{clientid}}/#", "permission": "allow", "action": "publish"}
    try:
        answers_as("rules for all: set", lab.api.post(f"{RULES}/all", json={"rules": [mine, *before["rules"]]}))
        after = answers_as("rules for all: read back", lab.api.get(f"{RULES}/all"))
        assert after["rules"][0] == {**mine, "qos": [0, 1, 2], "retain": "all"}
        answers_as("rules for all: delete", lab.api.delete(f"{RULES}/all"))
        assert lab.api.get(f"{RULES}/all").json() == {"rules": []}
    finally:
        lab.api.post(f"{RULES}/all", json=before)
    assert lab.api.get(f"{RULES}/all").json() == before


def test_a_cached_decision_overrides_a_new_rule(lab: Lab) -> None:
    device = lab.enter("dev")
    used, other = f"{lab.prefix}/used", f"{lab.prefix}/other"
    assert device.publish(used) == 16
    device.subscribe(f"{lab.prefix}/data")
    lab.put_rules(device.clientid, deny("#"))
    assert device.publish(used) == 16
    assert device.publish(other) == 135
    rows = answers_as("cache of a client", lab.api.get(f"/clients/{device.clientid}/authorization/cache"))
    assert {row["topic"]: row["result"] for row in rows}[other] == "deny"
    answers_as("clear a client's cache", lab.clear_cache(device.clientid))
    assert device.publish(used) == 135
    answers_as("remove rules", lab.api.delete(f"{RULES}/clients/{device.clientid}"))
    assert device.publish(used) == 135
    lab.clear_cache(device.clientid)
    assert device.publish(used) == 16


def test_all_caches_are_cleared_at_once(lab: Lab) -> None:
    device = lab.enter("dev")
    topic = f"{lab.prefix}/used"
    assert device.publish(topic) == 16
    lab.put_rules(device.clientid, deny("#"))
    answers_as("clear all caches", lab.api.delete("/authorization/cache"))
    assert device.publish(topic) == 135


def test_a_new_connection_starts_with_an_empty_cache(lab: Lab) -> None:
    device = lab.enter("dev")
    topic = f"{lab.prefix}/used"
    assert device.publish(topic) == 16
    lab.put_rules(device.clientid, deny("#"))
    device.leave()
    assert lab.enter("dev").publish(topic) == 135


@pytest.mark.parametrize(("version", "denied"), [(5, 135), (4, 128)])
def test_a_subscription_outlives_a_deny_rule_until_it_is_removed(lab: Lab, version: int, denied: int) -> None:
    topic = f"{lab.prefix}/data"
    device, other = lab.enter("dev", version=version), lab.enter("other")
    assert device.subscribe(topic) == [1]
    lab.put_rules(device.clientid, *_three_rules(device.clientid))
    other.publish(topic, "after deny")
    assert device.message().text == "after deny"
    lab.clear_cache(device.clientid)
    other.publish(topic, "after cache clear")
    assert device.message().text == "after cache clear"
    bulk = f"/clients/{device.clientid}/unsubscribe/bulk"
    answers_as("force unsubscribe", lab.api.post(bulk, json=[{"topic": topic}]))
    assert other.publish(topic, "after unsubscribe") == 16
    device.nothing()
    assert device.subscribe(topic, f"cordon/v1/{device.clientid}/down/#") == [denied, 1]


def test_a_persistent_session_resumes_a_denied_subscription(lab: Lab) -> None:
    topic = f"{lab.prefix}/data"
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(topic)
    device.leave()
    lab.until_known(device.clientid, connected=False)
    lab.put_rules(device.clientid, *_three_rules(device.clientid))
    other = lab.enter("other")
    assert other.publish(topic, "while away") == 0
    again = lab.probe("dev", clean=False, expiry=3600)
    assert again.connect().session_present
    assert again.message().text == "while away"
    assert other.publish(topic, "live, denied") == 0
    assert again.message().text == "live, denied"


def test_a_denied_publish_on_3_1_1_is_acknowledged_and_dropped(lab: Lab) -> None:
    topic = f"{lab.prefix}/data"
    watcher, device = lab.enter("watcher"), lab.enter("dev", version=4)
    watcher.subscribe(topic)
    lab.put_rules(device.clientid, deny("#"))
    assert device.publish(topic) == 0
    watcher.nothing()
    assert device.subscribe(topic) == [128]


def test_the_three_rules_of_a_restricted_device(lab: Lab) -> None:
    device = lab.probe("dev")
    me = device.clientid
    lab.put_rules(me, *_three_rules(me))
    device.enter()
    assert device.publish(f"cordon/v1/{me}/up/posture") in (0, 16)
    assert device.subscribe(f"cordon/v1/{me}/down/#") == [1]
    assert device.publish(f"cordon/v1/{me}/down/command") == 135
    assert device.subscribe(f"cordon/v1/{lab.name('another')}/down/#") == [135]
    assert device.subscribe(f"$share/g/{lab.prefix}/data", f"{lab.prefix}/data", "#") == [135, 135, 135]
    assert device.publish(f"{lab.prefix}/data") == 135
    assert device.publish(f"$delayed/1/{lab.prefix}/data") == 135
    assert device.publish(f"{lab.prefix}/data", retain=True) == 135


def test_the_first_rule_that_matches_decides(lab: Lab) -> None:
    device = lab.probe("dev")
    exact = f"{lab.prefix}/+/only"
    lab.put_rules(
        device.clientid,
        allow(f"eq {exact}", "subscribe"),
        deny(f"{lab.prefix}/+/only"),
        {**deny(f"{lab.prefix}/qos", "publish"), "qos": [1]},
        {**deny(f"{lab.prefix}/keep", "publish"), "retain": True},
        allow(f"{lab.prefix}/${{clientid}}/#"),
        deny(f"{lab.prefix}/+/mine"),
    )
    device.enter()
    assert device.subscribe(exact, f"{lab.prefix}/a/only") == [1, 135]
    assert device.publish(f"{lab.prefix}/qos", qos=1) == 135
    assert device.publish(f"{lab.prefix}/keep", retain=False) == 16
    assert device.publish(lab.retains(f"{lab.prefix}/keep"), retain=True) == 135
    assert device.publish(f"{lab.prefix}/{device.clientid}/mine") == 16
    assert device.publish(f"{lab.prefix}/other/mine") == 135


def test_a_rule_for_the_client_goes_before_one_for_its_user(lab: Lab) -> None:
    base = lab.endpoint()
    if base.username is None:
        pytest.skip("the broker under test gives its clients no user name")
    user = lab.name("user")
    lab.add_user(user, "pass-1")
    endpoint = type(base)(base.host, base.port, user, "pass-1")
    lab.put_user_rules(user, deny(f"{lab.prefix}/#"))
    lab.put_rules(lab.name("dev"), allow(f"{lab.prefix}/mine"))
    device = lab.enter("dev", endpoint=endpoint)
    assert device.publish(f"{lab.prefix}/mine") == 16
    assert device.publish(f"{lab.prefix}/other") == 135


@pytest.mark.parametrize(
    ("early", "kicked"), list(product((True, False), (True, False))), ids=lambda flag: str(flag).lower()
)
def test_a_last_will_is_not_published_where_rules_deny_it(lab: Lab, early: bool, kicked: bool) -> None:
    topic = f"{lab.prefix}/will"
    watcher = lab.enter("watcher")
    watcher.subscribe(topic)
    device = lab.probe("dev")
    device.will(topic, "gone")
    if early:
        lab.put_rules(device.clientid, deny("#"))
    device.enter()
    if not early:
        lab.put_rules(device.clientid, deny("#"))
    if kicked:
        lab.kick(device.clientid)
    else:
        device.drop()
    watcher.nothing()


def test_a_last_will_is_published_after_a_kick_but_not_after_a_ban(lab: Lab) -> None:
    topic = f"{lab.prefix}/will"
    watcher = lab.enter("watcher")
    watcher.subscribe(topic)
    for suffix in ("kicked", "banned", "lost", "left"):
        device = lab.probe(suffix)
        device.will(topic, suffix)
        device.enter()
    kicked, banned, lost, left = lab.probes[-4:]
    lab.kick(kicked.clientid)
    assert watcher.message().text == "kicked"
    lab.ban("clientid", banned.clientid)
    assert banned.ended().code == 152
    left.leave()
    watcher.nothing()
    lost.drop()
    assert watcher.message().text == "lost"
