"""Presence messages become suspicions, and nothing a client can send does."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.ports.broker import AuthStrength
from controller.ports.messages import IncomingMessage
from controller.service.identity.clones import MAX_PRESENCE, CloneMonitor
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import add_devices
from tests.support.shared_store import controller_over


def presence(
    device: str = "d1", reason: str = "takenover", peer: str = "192.0.2.1", what: str = "disconnected"
) -> IncomingMessage:
    body = {"clientid": device, "reason": reason, "ipaddress": peer, "ts": 1, "username": "u"}
    topic = f"$SYS/brokers/emqx1@127.0.0.1/clients/{device}/{what}"
    return IncomingMessage(topic, json.dumps(body).encode(), 0, retain=False, dup=False, ticket=-1, received_at=0.0)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    async with open_harness(tmp_path / "cordon.db") as made:
        await add_devices(made.fleet, Device("d1", first_seen=0.0, last_seen=0.0))
        yield made


@pytest.fixture
def watch(one: ControllerHarness) -> CloneMonitor:
    return one.loop(CloneMonitor)


async def test_two_in_turn_are_told_with_the_grade_of_their_identity(
    one: ControllerHarness, watch: CloneMonitor
) -> None:
    one.broker.grades["d1"] = AuthStrength.KNOWN
    await one.ingest.process_batch([presence(peer=f"192.0.2.{number % 2}") for number in range(4)])
    await watch.run_once()
    (line,) = await one.store.audit(kind=AuditKind.DEVICE_CLONE_SUSPECTED)
    assert line.entry.alert
    assert line.entry.detail is not None
    assert line.entry.detail["grade"] == "known"
    assert "192.0.2.0" in str(line.entry.detail["peers"])
    assert one.ingest.counts["received"] == 0  # and none of it counts as a device's message
    assert await one.store.dead_letters() == []


@pytest.mark.parametrize(
    "message",
    [
        presence(reason="normal"),
        presence(reason="kicked"),
        presence(what="connected"),
        presence(device="nobody-knows"),
        presence(peer="x" * 65),
        presence(peer="x" * MAX_PRESENCE),
        IncomingMessage(
            "$SYS/brokers/n/clients/d1/disconnected/more", b'{"reason":"takenover"}', 0, False, False, -1, 0.0
        ),
        IncomingMessage("$SYS/brokers/n/clients/../disconnected", b'{"reason":"takenover"}', 0, False, False, -1, 0.0),
        IncomingMessage("$SYS/brokers/n/clients/d1/disconnected", b"takenover, but no JSON", 0, False, False, -1, 0.0),
        IncomingMessage("$SYS/brokers/n/uptime", b"takenover", 0, False, False, -1, 0.0),
    ],
)
async def test_everything_else_is_passed_over(
    one: ControllerHarness, watch: CloneMonitor, message: IncomingMessage
) -> None:
    await one.ingest.process_batch([message] * 20)
    await watch.run_once()
    assert await one.store.audit(kind=AuditKind.DEVICE_CLONE_SUSPECTED) == []


async def test_a_device_that_another_controller_added_is_no_stranger(
    one: ControllerHarness, watch: CloneMonitor
) -> None:
    one.fleet.cache.is_shared = True
    await one.fleet.find("d9")
    other = await controller_over(one.store, 2, one.clock)
    await add_devices(other.fleet, Device("d9", first_seen=0.0, last_seen=0.0))
    await one.ingest.process_batch([presence("d9", peer=f"192.0.2.{number % 2}") for number in range(4)])
    await watch.run_once()
    assert len(await one.store.audit(kind=AuditKind.DEVICE_CLONE_SUSPECTED)) == 1
