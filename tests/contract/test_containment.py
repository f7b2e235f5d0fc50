"""Containment by Cordon's own adapter at the broker under test: a device must observe what the proof says."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import httpx
import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker import Proof, SavedSubscription
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerError
from schemas.topics import DownChannel, UpChannel, down, up
from tests.contract.target import RULES, Lab, allow
from tests.support.emqx_calls import PATIENT, session_of
from tests.support.mqtt_device import Device
from tests.support.mqtt_probe import Endpoint
from tests.support.waiting import wait_for

BANNED, DENIED, KICKED = 138, 135, 152
HELD_SECONDS = 90.0  # in which a containment holds whatever happens to one node
T = TypeVar("T")


def over(lab: Lab, work: Callable[[EmqxBroker], Awaitable[T]]) -> T:
    """Runs `work` with Cordon's adapter over every API address of the broker under test."""

    async def run() -> T:
        one = lab.broker
        async with open_emqx(one.api_urls, one.key, one.secret, clock=SystemClock(), limits=PATIENT) as broker:
            return await work(broker)

    return asyncio.run(run())


async def save_nothing(_rules: AccessRules) -> None:
    """For tests of the broker's state only."""


def isolate(lab: Lab, who: str, **more: Any) -> Proof:
    """Isolates without end; the rows are removed after the test."""
    lab.owns("clientid", who)
    options: dict[str, Any] = {"case": lab.prefix, "reason": "contract", "until": None, **more}
    return over(lab, lambda broker: broker.isolate(Subject.client(who), save_nothing, **options))


def restrict(lab: Lab, who: str, **more: Any) -> Proof:
    """Restricts; the rules are removed after the test."""
    lab.owns("clientid", who)
    return over(lab, lambda broker: broker.restrict(Subject.client(who), save_nothing, **more))


def own_user(lab: Lab) -> Endpoint:
    """An endpoint with a user for this test."""
    base, user = lab.endpoint(), lab.name("user")
    if base.username is None:
        pytest.skip("the broker under test gives its clients no user name")
    assert lab.add_user(user, "pass-1").status_code == 201
    return Endpoint(base.host, base.port, user, "pass-1")


def _at(lab: Lab, node: int, user: Endpoint) -> Endpoint:
    place = lab.endpoint(node)
    return Endpoint(place.host, place.port, user.username, user.password)


def test_an_isolated_user_loses_its_sessions_on_two_nodes(cluster: Lab) -> None:
    lab, user = cluster, own_user(cluster)
    name = str(user.username)
    lab.owns("username", name)
    devices = [lab.enter(f"dev{n}", endpoint=_at(lab, n, user)) for n in (0, 1)]
    other = lab.enter("other")
    for device in devices:
        lab.until_known(device.clientid)
    proof = over(
        lab,
        lambda broker: broker.isolate(Subject.user(name), save_nothing, case=lab.prefix, reason="contract", until=None),
    )
    assert proof.holds, proof.missing
    for device in devices:
        assert device.ended().code == KICKED
    for node in range(len(lab.broker.endpoints)):
        assert lab.probe(f"again{node}", endpoint=_at(lab, node, user)).connect().code == BANNED
    assert other.alive()
    listed = lab.api.get("/clients", params={"username": name, "limit": 100, "page": 1}).json()["data"]
    assert listed == []

    def let_out(broker: EmqxBroker) -> Awaitable[Proof]:
        return broker.release(Subject.user(name), ())

    assert over(lab, let_out).holds
    assert lab.probe("free", endpoint=_at(lab, 0, user)).connect().code == 0


def test_a_device_that_reconnects_at_once_over_other_nodes_ends_outside(cluster: Lab) -> None:
    lab = cluster
    base = lab.endpoint()
    user = None if base.username is None else (base.username, base.password or "")
    addresses = [(one.host, one.port) for one in lab.broker.endpoints]
    device = Device(lab.name("fast"), addresses, user=user, reconnects=True).connect()
    try:
        for _ in range(3):
            wait_for(lambda: device.is_connected, "connected")
            proof = isolate(lab, device.client_id)
            assert proof.holds, proof.missing
            seen = len(device.connacks)
            wait_for(lambda so_far=seen: len(device.connacks) > so_far + 4, "more attempts")  # type: ignore[misc]
            # An attempt may have been under way during the last check.
            assert set(device.connacks[seen + 1 :]) == {BANNED}
            assert over(lab, partial(_release, who=device.client_id)).holds
    finally:
        device.close()


async def _release(broker: EmqxBroker, who: str) -> Proof:
    return await broker.release(Subject.client(who), ())


def test_an_absent_session_is_restricted_and_keeps_its_queued_commands(lab: Lab) -> None:
    news = f"{lab.prefix}/news"
    lab.put_rules(lab.name("dev"), allow(f"{lab.prefix}/#"), allow(f"cordon/v1/{lab.name('dev')}/#"))
    device = lab.enter("dev", clean=False, expiry=3600)
    who = device.clientid
    assert device.subscribe(news, down(who, DownChannel.COMMAND)) == [1, 1]
    device.leave()
    lab.until_known(who, connected=False)
    proof = restrict(lab, who)
    assert proof.holds, proof.missing
    command = {"topic": down(who, DownChannel.COMMAND), "payload": "repair", "qos": 1}
    assert lab.api.post("/publish", json=command).status_code == 200
    assert lab.api.post("/publish", json={"topic": news, "payload": "fleet", "qos": 1}).status_code == 202
    again = lab.probe("dev", clean=False, expiry=3600)
    assert again.connect().session_present
    assert [one.text for one in again.messages(1)] == ["repair"]
    again.nothing()
    assert again.publish(news) == DENIED
    assert again.subscribe(news, down(who, DownChannel.RECEIPT)) == [DENIED, 1]
    assert again.publish(up(who, UpChannel.POSTURE)) in (0, 16)


def test_a_restricted_device_stays_connected_and_gets_its_subscriptions_back(lab: Lab) -> None:
    news = f"{lab.prefix}/news"
    lab.put_rules(lab.name("dev"), allow(f"{lab.prefix}/#"), allow(f"cordon/v1/{lab.name('dev')}/#"))
    device = lab.enter("dev")
    who = device.clientid
    message = {"topic": news, "payload": "fleet", "qos": 1}
    assert device.subscribe(news, down(who, DownChannel.COMMAND)) == [1, 1]
    lab.until_subscribed(who, news)
    kept: list[AccessRules] = []
    cut: list[SavedSubscription] = []

    async def keep(rules: AccessRules) -> None:
        kept.append(rules)

    async def keep_subscriptions(subscriptions: tuple[SavedSubscription, ...]) -> None:
        cut.extend(subscriptions)

    proof = over(lab, lambda broker: broker.restrict(Subject.client(who), keep, save_subscriptions=keep_subscriptions))
    assert proof.holds, proof.missing
    assert [(one.topic, one.qos) for one in cut] == [(news, 1)]
    assert lab.api.post("/publish", json=message).status_code == 202
    assert device.publish(news) == DENIED
    freed = over(lab, lambda broker: broker.release(Subject.client(who), kept[0], tuple(cut)))
    assert freed.holds, freed.missing
    lab.until_subscribed(who, news)
    wait_for(lambda: lab.api.post("/publish", json=message).status_code == 200, "it is routed again")
    assert device.message().text == "fleet"
    assert device.alive()


def test_a_requested_kick_ends_the_session(lab: Lab) -> None:
    lab.put_rules(lab.name("dev"), allow("#"))
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(f"{lab.prefix}/news")
    proof = restrict(lab, device.clientid, kick=True)
    assert proof.holds, proof.missing
    assert device.ended().code == KICKED
    again = lab.probe("dev", clean=False, expiry=3600)
    assert (again.connect().code, again.connack and again.connack.session_present) == (0, False)
    assert again.subscribe(f"{lab.prefix}/news") == [DENIED]


def test_a_resumed_session_has_a_new_connection_time(lab: Lab) -> None:
    device = lab.enter("dev", clean=False, expiry=3600)
    first = over(lab, lambda broker: session_of(broker.api, device.clientid))
    device.leave()
    again = lab.enter("dev", clean=False, expiry=3600)
    second = over(lab, lambda broker: session_of(broker.api, again.clientid))
    assert first is not None
    assert second is not None
    assert first.connected_since is not None
    assert second.connected_since is not None
    assert first.connected_since < second.connected_since


def test_the_restriction_holds_when_the_ban_is_lifted(lab: Lab) -> None:
    device = lab.enter("dev")
    proof = isolate(lab, device.clientid)
    assert proof.holds, proof.missing
    assert device.ended().code == KICKED
    assert over(lab, lambda broker: broker.end_isolation(Subject.client(device.clientid), save_nothing)).holds
    again = lab.enter("dev")
    assert again.publish(f"{lab.prefix}/fleet") == DENIED
    assert again.publish(up(device.clientid, UpChannel.POSTURE)) in (0, 16)
    assert over(lab, partial(_release, who=device.clientid)).holds


def test_a_node_restarted_in_the_middle_of_a_containment(cluster: Lab) -> None:
    lab = cluster
    restart = lab.broker.restart
    if restart is None:
        pytest.skip("nobody can restart a node here: set CORDON_TEST_EMQX_RESTART")
    number = len(lab.broker.endpoints) - 1
    device = lab.enter("dev", node=0)
    who = device.clientid
    lab.owns("clientid", who)
    restarts = iter([True])

    async def keep(_rules: AccessRules) -> None:
        if next(restarts, False):  # the ban is made, the rules are not
            await asyncio.to_thread(restart, number)

    async def until_it_holds(broker: EmqxBroker) -> Proof:
        """Retries until it is proven, as the outbox does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HELD_SECONDS
        while True:
            try:
                proof = await broker.isolate(Subject.client(who), keep, case=lab.prefix, reason="contract", until=None)
            except BrokerError as e:
                proof = Proof(False, str(e), ())
            if proof.holds or loop.time() > end:
                return proof
            await asyncio.sleep(0.5)

    proof = over(lab, until_it_holds)
    assert proof.holds, proof.missing
    assert device.ended().code == KICKED

    wait_for(partial(_has_rules, lab, number, who), "the restarted node has the rules", HELD_SECONDS)
    for node in range(len(lab.broker.endpoints)):
        wait_for(partial(_refuses, lab, node), f"node {node} refuses", HELD_SECONDS)
    # Once all nodes are back, the proof is read from all of them.
    assert over(lab, until_it_holds).holds


def _is_listed(lab: Lab, who: str) -> bool:
    return lab.api.get(f"{RULES}/clients/{who}").status_code == 200


def _has_rules(lab: Lab, node: int, who: str) -> bool:
    try:
        return lab.apis[node].get(f"{RULES}/clients/{who}").status_code == 200
    except httpx.HTTPError:  # it is starting
        return False


def _refuses(lab: Lab, node: int) -> bool:
    try:
        return lab.probe("dev", node=node).connect().code == BANNED
    except (OSError, AssertionError):  # its listener is not there yet
        return False


def test_foreign_bans_are_left_as_they_are(lab: Lab) -> None:
    names = [lab.name(f"foreign{n}") for n in range(lab.broker.foreign_bans)]
    lab.ban_all(names)
    before = lab.bans_of(names)
    assert len(before) == len(names)
    device = lab.enter("dev")
    proof = isolate(lab, device.clientid)
    assert proof.holds, proof.missing
    theirs = isolate(lab, names[0])
    assert theirs.holds, theirs.missing
    assert any(step.what == "ban there already" for step in theirs.steps)
    for who in (device.clientid, names[0]):
        assert over(lab, partial(_release, who=who)).holds
    assert lab.bans_of(names) == before
    assert lab.api.get("/banned", params={"clientid": device.clientid}).json()["data"] == []


def test_only_the_retained_messages_of_an_isolated_device_are_deleted(lab: Lab) -> None:
    if not over(lab, lambda broker: broker.lists_retained()):
        pytest.skip("this broker cannot list retained messages")
    mine, other_topic = lab.retains(f"{lab.prefix}/mine/state"), lab.retains(f"{lab.prefix}/other/state")
    for name in ("dev", "other"):
        lab.put_rules(lab.name(name), allow(f"{lab.prefix}/#"))
    device, other = lab.enter("dev"), lab.enter("other")
    device.publish(mine, "I was here", retain=True)
    other.publish(other_topic, "still", retain=True)
    wait_for(lambda: {mine, other_topic} <= lab.retained_topics(), "both are retained")
    proof = isolate(lab, device.clientid, clear_retained=True)
    assert proof.holds, proof.missing
    assert mine not in lab.retained_topics()
    assert other_topic in lab.retained_topics()


def test_a_bulk_write_of_rules_is_refused_if_one_client_has_rules(lab: Lab) -> None:
    fresh = [lab.name(f"bulk{n}") for n in range(3)]
    body = [{"clientid": who, "rules": [{"topic": "#", "permission": "deny", "action": "all"}]} for who in fresh]
    for who in fresh:
        lab.owns("clientid", who)
    assert lab.api.post(f"{RULES}/clients", json=body[:2]).status_code == 204
    refused = lab.api.post(f"{RULES}/clients", json=body)
    assert refused.status_code == 409
    assert refused.json()["code"] == "ALREADY_EXISTS"
    for who in fresh[:2]:
        wait_for(partial(_is_listed, lab, who), f"{who} has rules")
    assert restriction(fresh[0])  # what Cordon writes this way
