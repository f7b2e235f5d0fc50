"""Clients: rows, kicks, take-over, forced subscriptions."""

import pytest

from tests.contract.target import Lab, answers_as, fails_as
from tests.support.mqtt_probe import Endpoint


def test_rows_and_pages(lab: Lab) -> None:
    first, second = lab.enter("a"), lab.enter("b", version=4, node=1)
    for probe in (first, second):
        lab.until_known(probe.clientid)
    row = answers_as("client, exact", lab.api.get(f"/clients/{first.clientid}"))
    assert (row["clientid"], row["proto_ver"], row["connected"]) == (first.clientid, 5, True)
    fails_as("client absent", lab.api.get(f"/clients/{lab.name('none')}"))
    answers_as("clients page", lab.api.get("/clients", params={"limit": 2, "page": 1}))
    like = answers_as("clients like", lab.api.get("/clients", params={"like_clientid": lab.prefix, "limit": 10}))
    assert {r["clientid"] for r in like["data"]} == {first.clientid, second.clientid}
    fails_as("clients by node", lab.api.get("/clients", params={"node": "nosuch@127.0.0.1"}))
    several = lab.api.get("/clients", params=[("clientid", first.clientid), ("clientid", second.clientid)])
    assert {r["clientid"] for r in several.json()["data"]} == {first.clientid, second.clientid}
    few = lab.api.get(f"/clients/{first.clientid}", params={"fields": "clientid,connected"})
    assert few.status_code == 200


def test_the_cursor_reaches_every_client(lab: Lab) -> None:
    names = {lab.enter(f"c{n}", node=n).clientid for n in range(3)}
    for name in names:
        lab.until_known(name)
    seen: set[str] = set()
    cursor: dict[str, str] = {}
    for turn in range(10_000):
        answer = lab.api.get("/clients_v2", params={"limit": 1 if turn == 0 else 100, **cursor})
        body = answers_as("clients_v2 page", answer) if turn == 0 else answer.json()
        seen.update(row["clientid"] for row in body["data"])
        if "cursor" not in body["meta"]:
            break
        cursor = {"cursor": body["meta"]["cursor"]}
    assert names <= seen
    assert lab.api.get("/clients_v2", params={"cursor": "!"}).status_code == 400


@pytest.mark.parametrize(("version", "code"), [(5, 152), (4, None)])
def test_a_kick_destroys_the_session_and_nothing_else(lab: Lab, version: int, code: int | None) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", version=version, clean=False, expiry=3600)
    device.subscribe(topic)
    answers_as("kick", lab.kick(device.clientid))
    assert device.ended().code == code
    lab.until_gone(device.clientid)
    again = lab.probe("dev", version=version, clean=False, expiry=3600)
    connack = again.connect()
    assert (connack.code, connack.session_present) == (0, False)
    assert lab.enter("other").publish(topic) == (16)
    again.nothing()


def test_a_kick_reaches_an_absent_session(lab: Lab) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(topic)
    device.leave()
    lab.until_known(device.clientid, connected=False)
    row = answers_as("persistent session while away", lab.api.get(f"/clients/{device.clientid}"))
    assert (row["is_persistent"], row["expiry_interval"]) == (True, 3600)
    answers_as("kick a disconnected persistent session", lab.kick(device.clientid))
    lab.until_gone(device.clientid)
    assert lab.enter("other").publish(topic) == 16
    assert not lab.probe("dev", clean=False, expiry=3600).connect().session_present


def test_kicks_of_unknown_clients(lab: Lab) -> None:
    fails_as("kick absent", lab.kick(lab.name("none")))
    device = lab.enter("dev")
    ids = [device.clientid, lab.name("none")]
    answers_as("kick bulk with an absent one", lab.api.post("/clients/kickout/bulk", json=ids))
    assert device.ended().code == 152
    answers_as("kick bulk empty", lab.api.post("/clients/kickout/bulk", json=[]))


@pytest.mark.parametrize("clean", [True, False])
def test_a_second_connection_of_a_client_id_takes_over(lab: Lab, clean: bool) -> None:
    first = lab.enter("twin", node=0)
    second = lab.probe("twin", node=2, clean=clean)
    assert second.connect().code == 0
    assert first.ended().code == 142
    assert second.alive()


def test_a_taken_over_client_of_3_1_1_sees_its_socket_close(lab: Lab) -> None:
    first = lab.enter("twin", version=4)
    lab.enter("twin", version=4, node=1)
    assert first.ended().code is None


def test_forced_unsubscription(lab: Lab) -> None:
    one, two = f"{lab.prefix}/1", f"{lab.prefix}/2"
    device, other = lab.enter("dev"), lab.enter("other")
    device.subscribe(one, two)
    rows = answers_as("client subscriptions", lab.api.get(f"/clients/{device.clientid}/subscriptions"))
    assert sorted(row["topic"] for row in rows) == [one, two]
    bulk = f"/clients/{device.clientid}/unsubscribe/bulk"
    answers_as("unsubscribe bulk", lab.api.post(bulk, json=[{"topic": one}, {"topic": two}]))
    single = f"/clients/{device.clientid}/unsubscribe"
    answers_as("unsubscribe absent topic", lab.api.post(single, json={"topic": f"{lab.prefix}/9"}))
    absent = f"/clients/{lab.name('none')}/unsubscribe/bulk"
    fails_as("unsubscribe, client absent", lab.api.post(absent, json=[{"topic": "x"}]))
    assert other.publish(one) == 16
    device.nothing()


def test_forced_unsubscription_of_an_absent_session(lab: Lab) -> None:
    topic = f"{lab.prefix}/q"
    device = lab.enter("dev", clean=False, expiry=3600)
    device.subscribe(topic, f"{lab.prefix}/kept")
    device.leave()
    lab.until_known(device.clientid, connected=False)
    bulk = f"/clients/{device.clientid}/unsubscribe/bulk"
    assert lab.api.post(bulk, json=[{"topic": topic}]).status_code == 204
    again = lab.probe("dev", clean=False, expiry=3600)
    assert again.connect().session_present
    other = lab.enter("other")
    assert other.publish(topic) == 16
    assert other.publish(f"{lab.prefix}/kept") == 0
    assert again.message().topic == f"{lab.prefix}/kept"


def test_forced_subscription(lab: Lab) -> None:
    topic = f"{lab.prefix}/forced"
    device = lab.enter("dev")
    answer = lab.api.post(f"/clients/{device.clientid}/subscribe", json={"topic": topic, "qos": 1})
    assert answer.status_code == 200
    lab.until_subscribed(device.clientid, topic)
    assert lab.enter("other").publish(topic, "hello") == 0
    assert device.message().text == "hello"


def test_passwords(lab: Lab) -> None:
    base, user = lab.endpoint(), lab.name("user")
    if base.username is None:
        pytest.skip("the broker under test lets anybody in")
    lab.add_user(user, "right")
    fails_as("add user again", lab.add_user(user, "other"))
    for password, code in (("right", 0), ("wrong", 134)):
        endpoint = Endpoint(base.host, base.port, user, password)
        assert lab.probe(f"pw{code}", endpoint=endpoint).connect().code == code
    unknown = Endpoint(base.host, base.port, lab.name("nobody"), "x")
    assert lab.probe("unknown", endpoint=unknown).connect().code == 135
    # Versions of EMQX differ in whether a missing password is a wrong one.
    assert lab.probe("anonymous", endpoint=Endpoint(base.host, base.port)).connect().code in (134, 135)
    listed = answers_as("list users", lab.api.get(_users(), params={"limit": 10000, "page": 1}))
    assert user in [row["user_id"] for row in listed["data"]]
    answers_as("delete user", lab.api.delete(f"{_users()}/{user}"))
    fails_as("delete user again", lab.api.delete(f"{_users()}/{user}"))


def _users() -> str:
    return "/authentication/password_based:built_in_database/users"
