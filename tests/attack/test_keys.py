"""Keys that are stolen, replaced and revoked, and orders that need two persons: on a real agent over a real broker."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import countersign, key_id, public_key_text, sign, to_be_signed
from tests.support.agent_process import DEVICE, AgentProcess, FakeController, broker_with_controller, write_config
from tests.support.waiting import wait_for

OPERATOR = Ed25519PrivateKey.generate()


@dataclass
class Scenario:
    controller: FakeController
    agent: AgentProcess
    count: int = 0

    def ordered(self, *keys: Ed25519PrivateKey, action: str = "rescan", **params: Any) -> dict[str, Any]:
        """How the device answers a command signed by all of the keys."""
        self.count += 1
        now = datetime.now(UTC)
        command = Command(
            command_id=f"k{self.count}", device_id=DEVICE, action=action, params=params, issued_at=now,
            expires_at=now + timedelta(minutes=5), counter=self.count,
        )  # fmt: skip
        payload = command.model_dump_json().encode()
        more = {key_id(one.public_key()): one.sign(to_be_signed(COMMAND_PAYLOAD_TYPE, payload)) for one in keys[1:]}
        self.controller.command(countersign(sign(payload, COMMAND_PAYLOAD_TYPE, keys[0]), more))
        name = command.command_id
        found: list[dict[str, Any]] = wait_for(
            lambda: [one for one in self.controller.ends() if one["command_id"] == name], f"the end of {name}"
        )
        return found[0]

    def forged(self, key: Ed25519PrivateKey) -> None:
        """The device trusts this key no more."""
        before = self.agent.log.count("no valid signature by a trusted key")
        now = datetime.now(UTC)
        command = Command(
            command_id="stolen", device_id=DEVICE, action="rescan", params={}, issued_at=now,
            expires_at=now + timedelta(minutes=5), counter=10_000,
        )  # fmt: skip
        self.controller.command(sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, key))
        wait_for(lambda: self.agent.log.count("no valid signature by a trusted key") > before, "its refusal")


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Scenario]:
    """An agent that wants an operator's signature for one action."""
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        more = f'operator_keys = ["{public_key_text(OPERATOR.public_key())}"]\ntwo_signatures = ["test.append"]\nallow'
        config.write_text(config.read_text().replace("allow", more, 1))
        with AgentProcess(config) as agent:
            wait_for(controller.full, "a report")
            yield Scenario(controller, agent)


def test_a_rotation_with_a_stolen_old_key(scenario: Scenario) -> None:
    old, new = scenario.controller.key, Ed25519PrivateKey.generate()
    key = public_key_text(new.public_key())
    end = scenario.ordered(old, action="keys.introduce", key=key, retire=key_id(old.public_key()), overlap=3600)
    assert end["state"] == "succeeded", end
    assert scenario.ordered(new)["state"] == "succeeded"
    assert scenario.ordered(old)["state"] == "succeeded"  # within the overlap
    thief = scenario.ordered(old, action="keys.revoke", keyid=key_id(new.public_key()))
    assert (thief["state"], thief["reason"]) == ("rejected", "revoking a key needs an operator's signature")
    revoked = scenario.ordered(new, OPERATOR, action="keys.revoke", keyid=key_id(old.public_key()))
    assert revoked["state"] == "succeeded", revoked
    scenario.forged(old)
    assert scenario.ordered(new)["state"] == "succeeded"


def test_a_controller_alone_cannot_do_what_needs_two(scenario: Scenario, tmp_path: Path) -> None:
    alone = scenario.ordered(scenario.controller.key, action="test.append", text="x")
    assert alone["state"] == "rejected"
    assert "needs a second signature" in alone["reason"]
    operator = scenario.ordered(OPERATOR, action="test.append", text="x")
    assert operator["reason"] == "no signature by the controller"
    both = scenario.ordered(scenario.controller.key, OPERATOR, action="test.append", text="x")
    assert "signature" not in both["reason"], both
