"""Commands by somebody with an account at the broker: a real broker, a real agent process, and nothing is done.

What the agent tells of them is then taken in by a controller, whose record has it.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.domain.audit_kinds import AuditKind
from schemas.base import MAX_COMMAND_BYTES
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import sign
from schemas.topics import UpChannel
from tests.support.agent_process import DEVICE, AgentProcess, FakeController, broker_with_controller, write_config
from tests.support.controller_harness import open_harness
from tests.support.reports import full, incoming
from tests.support.waiting import wait_for

MARK = "appended"


@dataclass
class Scenario:
    """A device that obeys its controller, and whoever else publishes at its broker."""

    controller: FakeController
    agent: AgentProcess
    folder: Path

    def order(self, number: int = 900, *, device_id: str = DEVICE, minutes: int = 5, name: str = "evil") -> bytes:
        """A command as the controller would write it."""
        now = datetime.now(UTC)
        command = Command(
            command_id=name, device_id=device_id, action="test.append", params={"path": str(self.folder / MARK)},
            issued_at=now - timedelta(minutes=60), expires_at=now + timedelta(minutes=minutes), counter=number,
        )  # fmt: skip
        return command.model_dump_json().encode()

    def signed(self, payload: bytes, kind: str = COMMAND_PAYLOAD_TYPE) -> bytes:
        return sign(payload, kind, self.controller.key)

    def refused(self, envelope: bytes, reason: str) -> None:
        """The agent says why, answers nothing, does nothing, and goes on obeying its controller."""
        answered = len(self.controller.of("result"))
        before = self.agent.log.count(reason)
        self.controller.command(envelope)
        wait_for(lambda: self.agent.log.count(reason) > before, reason)
        assert len(self.controller.of("result")) == answered
        assert not (self.folder / MARK).exists()


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """One agent for all: what is refused changes nothing."""
    folder = tmp_path_factory.mktemp("attack")
    with broker_with_controller() as (broker, controller):
        config = write_config(folder, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config) as agent:
            wait_for(controller.full, "a report")
            yield Scenario(controller, agent, folder)


def test_forged(scenario: Scenario) -> None:
    envelope = sign(scenario.order(), COMMAND_PAYLOAD_TYPE, Ed25519PrivateKey.generate())
    scenario.refused(envelope, "no valid signature by a trusted key")


def test_altered(scenario: Scenario) -> None:
    envelope = json.loads(scenario.signed(scenario.order(name="good")))
    envelope["payload"] = base64.b64encode(scenario.order(name="other")).decode()
    scenario.refused(json.dumps(envelope).encode(), "no valid signature by a trusted key")


def test_downgraded_to_none(scenario: Scenario) -> None:
    scenario.refused(scenario.order(), "not a signed envelope")


def test_signed_for_another_purpose(scenario: Scenario) -> None:
    scenario.refused(
        scenario.signed(scenario.order(), "application/vnd.cordon.report.v1+json"), "signed for another purpose"
    )


def test_for_another_device(scenario: Scenario) -> None:
    scenario.refused(scenario.signed(scenario.order(device_id="edge-2")), "signed for another device: edge-2")


def test_oversize(scenario: Scenario) -> None:
    scenario.refused(b"x" * (MAX_COMMAND_BYTES + 1), "envelope too large")


def test_expired(scenario: Scenario) -> None:
    scenario.controller.command(scenario.signed(scenario.order(minutes=-1, name="expired")))
    end = wait_for(lambda: [one for one in scenario.controller.ends() if one["command_id"] == "expired"], "its end")[0]
    assert end["state"] == "expired"
    assert not (scenario.folder / MARK).exists()


def test_replayed(scenario: Scenario) -> None:
    first = scenario.controller.envelope("rescan", command_id="recorded")
    scenario.controller.command(first)
    wait_for(lambda: [one for one in scenario.controller.ends() if one["command_id"] == "recorded"], "its end")
    taken = scenario.agent.log.count("command recorded taken")
    scenario.controller.command(first)
    wait_for(lambda: sum(one["command_id"] == "recorded" for one in scenario.controller.ends()) == 2, "told again")
    assert scenario.agent.log.count("command recorded taken") == taken  # and not run again
    old = scenario.signed(scenario.order(number=0, name="old"))
    scenario.controller.command(old)
    end = wait_for(lambda: [one for one in scenario.controller.ends() if one["command_id"] == "old"], "its end")[0]
    assert (end["state"], "an old command again" in end["reason"]) == ("rejected", True)
    assert not (scenario.folder / MARK).exists()


async def test_what_was_refused_stands_in_the_record(scenario: Scenario, tmp_path: Path) -> None:
    scenario.controller.command(b"{}")
    events: list[dict[str, Any]] = wait_for(lambda: scenario.controller.of("event"), "an event")
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming(DEVICE, full(DEVICE, 1, 22))])
        await harness.ingest.process_batch([incoming(DEVICE, json.dumps(events[0]).encode(), UpChannel.EVENT)])
        rejected = [one for one in scenario.controller.ends() if one["command_id"] == "old"]
        assert rejected
        for one in rejected:
            await harness.ingest.process_batch([incoming(DEVICE, json.dumps(one).encode(), UpChannel.RESULT)])
        (line,) = await harness.store.audit(kind=AuditKind.DEVICE_EVENT_REPORTED)
        assert (line.entry.detail or {})["event_kind"] == "command_refused"
        assert (line.entry.detail or {})["summary"]
        told = await harness.store.audit(kind=AuditKind.COMMAND_REPLAY_REFUSED)
        assert {(line.entry.detail or {})["command_id"] for line in told} == {one["command_id"] for one in rejected}
