"""Isolated devices that come back under another id: their user name is contained, and nobody else's."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.policy.model import ContainmentLevel
from controller.ports.messages import IncomingMessage
from controller.service.containment.returns import MAX_CHECKS, MAX_SESSIONS, ReturnMonitor
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import add_devices
from tests.support.shared_store import controller_over


def connected(client: str, username: str) -> IncomingMessage:
    body = {"username": username, "clientid": client, "ipaddress": "192.0.2.1"}
    topic = f"$SYS/brokers/emqx1@127.0.0.1/clients/{client}/connected"
    return IncomingMessage(topic, json.dumps(body).encode(), 0, retain=False, dup=False, ticket=-1, received_at=0.0)


async def isolate(harness: ControllerHarness, device_id: str) -> None:
    event = ContainmentOrdered(harness.fleet.new_id(), ContainmentLevel.ISOLATED, "operator:a", "stolen", None)
    await harness.fleet.apply_and_commit(device_id, event)


async def know(harness: ControllerHarness, *device_ids: str) -> None:
    await add_devices(harness.fleet, *(Device(device_id, first_seen=0.0, last_seen=0.0) for device_id in device_ids))


async def told(harness: ControllerHarness) -> list[tuple[object, object]]:
    lines = await harness.store.audit(kind=AuditKind.DEVICE_RETURNED, newest_first=False)
    details = [line.entry.detail or {} for line in lines if line.entry.alert]
    return [(detail["contained"], detail["why"]) for detail in details]


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    async with open_harness(tmp_path / "cordon.db") as made:
        await know(made, "d1", "d2")
        await isolate(made, "d1")
        yield made


@pytest.fixture
def returns(one: ControllerHarness) -> ReturnMonitor:
    return one.loop(ReturnMonitor)


async def test_the_user_name_is_contained_as_long_as_the_device(one: ControllerHarness, returns: ReturnMonitor) -> None:
    users = one.services.containment.users
    one.users.live["d1"] = ["other"]
    await one.ingest.process_batch([connected("other", "d1")])
    await returns.run_once()
    await users.tick()
    assert (users.cases["d1"].is_proven, users.cases["d1"].level, one.users.live) == (
        True,
        ContainmentLevel.ISOLATED,
        {},
    )
    assert await told(one) == [(True, "")]
    (decided,) = [
        line for line in await one.store.audit(kind=AuditKind.CONTAINMENT_DECIDED) if line.entry.actor == "cordon"
    ]
    assert "'other'" in str(decided.entry.detail)
    for after in (ContainmentLevel.RESTRICTED, ContainmentLevel.NONE):
        await one.fleet.apply_and_commit("d1", ReleaseOrdered(one.fleet.new_id(), "operator:a", "repaired"))
        assert one.level("d1") is after
        await returns.compare()
        await users.tick()
        case = users.cases.get("d1")
        assert (ContainmentLevel.NONE if case is None else case.level) is after
    assert (users.cases, one.users.bans, one.users.rules.get("d1", ())) == ({}, {}, ())


async def test_it_is_found_without_presence_after_a_restart_and_ends_after_one(tmp_path: Path) -> None:
    path = tmp_path / "cordon.db"
    async with open_harness(path) as harness:
        for number in range(MAX_CHECKS + 1):
            await isolate(harness, f"a{number}")
        await isolate(harness, "z")
    async with open_harness(path) as harness:
        harness.users.live["z"] = ["other"]
        for _ in range(2):
            await harness.loop(ReturnMonitor).compare()
        assert set(harness.services.containment.users.cases) == {"z"}
        for _ in range(2):
            await harness.fleet.apply_and_commit("z", ReleaseOrdered(harness.fleet.new_id(), "operator:a", "r"))
    async with open_harness(path) as harness:
        await harness.loop(ReturnMonitor).compare()
        await harness.services.containment.users.tick()
        assert harness.services.containment.users.cases == {}


async def test_another_user_name_and_a_claimed_one_contain_nobody(
    one: ControllerHarness, returns: ReturnMonitor
) -> None:
    one.users.live.update({"app": ["app-1"], "d2": ["other"], "d1": ["liar", "d1"]})
    one.broker.claims_username.add("liar")
    await one.ingest.process_batch([connected("app-1", "app"), connected("other", "d2"), connected("liar", "d1")])
    await returns.run_once()
    await returns.compare()
    assert one.services.containment.users.cases == {}
    assert await told(one) == []


@pytest.mark.parametrize(
    ("sessions", "why"),
    [
        (["other", "d2"], "device d2 uses it too"),
        ([f"c{number}" for number in range(MAX_SESSIONS + 1)], "more than 10"),
    ],
)
async def test_a_shared_name_is_an_alert_and_no_containment(
    one: ControllerHarness, returns: ReturnMonitor, sessions: list[str], why: str
) -> None:
    one.users.live["d1"] = sessions
    for _ in range(3):
        await returns.compare()
    assert one.services.containment.users.cases == {}
    ((contained, said),) = await told(one)
    assert (contained, why in str(said)) == (False, True)


async def test_protected_devices_and_the_controllers_own_name_are_left_alone(tmp_path: Path) -> None:
    guards = FleetGuards(protection=ProtectionRules(devices=frozenset({"d1"})))
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    mqtt = {
        "servers": ["mqtt://127.0.0.1:1"],
        "username": "me",
        "password_file": str(tmp_path / "password"),
    }
    async with open_harness(tmp_path / "cordon.db", guards=guards, settings={"mqtt": mqtt}) as harness:
        for name in ("d1", "me"):
            await isolate(harness, name)
            harness.users.live[name] = ["other"]
        await harness.loop(ReturnMonitor).compare()
        assert harness.services.containment.users.cases == {}
        assert [contained for contained, _ in await told(harness)] == [False, False]


async def test_what_operators_decide_about_the_user_stays(one: ControllerHarness, returns: ReturnMonitor) -> None:
    users = one.services.containment.users
    one.users.live["d1"] = ["other"]
    await returns.compare()
    for _ in range(2):
        await users.release("d1", by="operator:a", reason="it is our gateway")
        await users.tick()
    await returns.compare()
    assert users.cases == {}, "released by an operator, and not contained again"
    await users.contain("d1", ContainmentLevel.RESTRICTED, by="operator:a", reason="r", hold=None)
    for _ in range(2):
        await one.fleet.apply_and_commit("d1", ReleaseOrdered(one.fleet.new_id(), "operator:a", "r"))
    await returns.compare()
    assert users.cases["d1"].level is ContainmentLevel.RESTRICTED


async def test_a_device_that_another_controller_isolated_is_seen_to_come_back(
    one: ControllerHarness, returns: ReturnMonitor
) -> None:
    one.fleet.cache.is_shared = True
    await one.fleet.find("d2")
    other = await controller_over(one.store, 2, one.clock)
    event = ContainmentOrdered("e", ContainmentLevel.ISOLATED, "operator:a", "stolen", None)
    await other.fleet.load(("d2",))
    await other.fleet.apply_and_commit("d2", event)
    in_memory = one.fleet.cache.peek("d2")
    assert in_memory is not None
    assert in_memory.level is ContainmentLevel.NONE
    one.users.live["d2"] = ["other"]
    await one.ingest.process_batch([connected("other", "d2")])
    await returns.run_once()
    assert await told(one) == [(True, "")]
