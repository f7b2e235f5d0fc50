"""An order that waits for a second person, from the API to the device's judgement of what was sent."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.app.adapters import signer
from controller.cli.errors import CliError
from controller.cli.keys.operator_keys import new_key, open_key
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken
from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier, SignaturePolicy
from device_agent.domain.verdict import AcceptedCommand, RejectedCommand
from schemas.signing import key_id, public_key_text, to_be_signed
from schemas.topics import DownChannel, down
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.browser import put_account, signed_in

OLD, NEW, OPERATOR = (Ed25519PrivateKey.generate() for _ in range(3))
ORDER = {"device_id": "edge-1", "action": "rescan", "hold": True}
SECOND = {"Authorization": "Bearer cordon_second"}
WHY = {"reason": "because"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API whose controller signs commands with two keys."""
    second = ApiToken("second", digest_of("cordon_second"), 0.0, ALL)
    async with open_api(tmp_path / "cordon.db", sign=signer(NEW, OLD), tokens=[second]) as one:
        yield one


async def sign(api: Api, command_id: str, status: int = 201, *, body: dict[str, str] | None = None) -> Any:
    """The answer to the second person, who signs."""
    found = body or await signature(api, command_id)
    response = await api.client.post(f"/api/v1/commands/{command_id}/signatures", json=found, headers=SECOND)
    assert response.status_code == status, response.text
    return response.json()


def sent(api: Api) -> list[bytes]:
    """Envelopes that went to the device."""
    topic = down("edge-1", DownChannel.COMMAND)
    return [payload for to, payload in api.harness.link.sent if to == topic]


def judged(api: Api, raw: bytes, *keys: Ed25519PrivateKey) -> Any:
    """By a device that wants two signatures."""
    terms = SignaturePolicy({key_id(OPERATOR.public_key()): OPERATOR.public_key()}, frozenset({"rescan"}))
    verifier = CommandVerifier.from_keys("edge-1", [key.public_key() for key in keys], ["rescan"], terms)
    now = datetime.fromtimestamp(api.harness.clock.at, UTC)
    return verifier.verify(raw, counters=CommandCounters(), known_command_ids=frozenset(), now=now)


async def held(api: Api) -> dict[str, Any]:
    """An order that waits."""
    await api.report("edge-1")
    command: dict[str, Any] = await api.json("POST", "/api/v1/commands", 201, ORDER)
    await api.harness.drain()
    return command


async def signature(api: Api, command_id: str, key: Ed25519PrivateKey = OPERATOR) -> dict[str, str]:
    found = await api.json("GET", f"/api/v1/commands/{command_id}/payload")
    message = to_be_signed(found["payload_type"], base64.b64decode(found["payload"]))
    signed = base64.b64encode(key.sign(message)).decode()
    return {"key": public_key_text(key.public_key()), "signature": signed}


async def test_it_is_sent_once_an_operator_has_signed(api: Api) -> None:
    command = await held(api)
    assert (command["state"], command["reason"]) == ("scheduled", "waits for a second signature")
    assert sent(api) == []
    (asked,) = (await api.json("GET", "/api/v1/approvals?state=open"))["items"]
    assert (asked["asks"], asked["subject"], asked["reason"]) == ("command", command["command_id"], "rescan")
    await api.json("POST", f"/api/v1/approvals/{asked['request_id']}/approve", 409, {})  # by its signature alone
    body = await signature(api, command["command_id"])
    own = await api.json("POST", f"/api/v1/commands/{command['command_id']}/signatures", 409, body)
    assert "your own" in own["error"]["message"]
    assert (await sign(api, command["command_id"], body=body))["reason"] == ""
    ended = await api.json("GET", f"/api/v1/approvals/{asked['request_id']}")
    assert (ended["state"], ended["decided_by"]) == ("approved", "operator:second")
    await api.harness.drain()
    (envelope,) = sent(api)
    assert len(json.loads(envelope)["signatures"]) == 3
    for trusted in ((NEW,), (OLD,), (OLD, NEW)):  # whichever of the controller's keys the device knows
        assert isinstance(judged(api, envelope, *trusted), AcceptedCommand)
    assert AuditKind.COMMAND_COUNTERSIGNED in [
        line.entry.kind for line in await api.harness.store.audit(device_id="edge-1")
    ]
    await sign(api, command["command_id"], 409, body=body)
    await api.json("POST", f"/api/v1/commands/{command['command_id']}/signatures", 409, body)


@pytest.mark.parametrize("how", ["reject", "withdraw"])
async def test_a_command_that_waits_is_withdrawn_with_its_request(api: Api, how: str) -> None:
    command = await held(api)
    path, headers = f"/api/v1/approvals/{command['command_id']}/{how}", SECOND if how == "reject" else None
    response = await api.client.post(path, json=WHY, headers=headers)
    assert response.status_code == 200, response.text
    found = await api.json("GET", f"/api/v1/commands/{command['command_id']}")
    assert (found["state"], found["reason"]) == ("expired", "because")
    await sign(
        api,
        command["command_id"],
        409,
        body={"key": public_key_text(OPERATOR.public_key()), "signature": "A" * 86 + "=="},
    )


async def test_a_command_that_was_not_held_gets_no_signature_afterwards(api: Api) -> None:
    """Whoever sends it could sign it too before the device is there."""
    await api.report("edge-1")
    command = await api.json("POST", "/api/v1/commands", 201, {**ORDER, "hold": False})
    answer = await sign(api, command["command_id"], 409)
    assert "--hold" in answer["error"]["message"]


async def test_nobody_signs_with_a_scope_that_the_requester_gave_them(api: Api) -> None:
    for name, role in (("ada", "admin"), ("bob", "viewer"), ("cy", "operator")):
        await put_account(api, name, role)
    ada, bob = await signed_in(api, "ada"), await signed_in(api, "bob")
    await api.report("edge-1")
    command = await ada.json("POST", "/commands", 201, ORDER)
    asked = await bob.json("POST", "/approvals", 201, {"scopes": ["command"], "for": "1h", **WHY})
    await ada.json("POST", f"/approvals/{asked['request_id']}/approve", 200)
    path, body = f"/commands/{command['command_id']}/signatures", await signature(api, command["command_id"])
    refused = await bob.json("POST", path, 403, body)
    assert "gave you the scope" in refused["error"]["message"]
    await (await signed_in(api, "cy")).json("POST", path, 201, body)
    assert (await bob.json("POST", path, 403, body))["error"]["code"] == "scope_missing"  # once it is approved too


async def test_a_controller_alone_is_refused_by_the_device(api: Api) -> None:
    await held(api)
    await api.json("POST", "/api/v1/commands", 201, {**ORDER, "hold": False})
    await api.harness.drain()
    (envelope,) = sent(api)
    answer = judged(api, envelope, OLD, NEW)
    assert isinstance(answer, RejectedCommand)
    assert "second signature" in answer.reason


async def test_a_signature_that_does_not_fit(api: Api) -> None:
    first, second = await held(api), await api.json("POST", "/api/v1/commands", 201, ORDER)
    other = await signature(api, first["command_id"])
    path = f"/api/v1/commands/{second['command_id']}/signatures"
    wrong = await api.json("POST", path, 422, other)
    assert wrong["error"]["code"] == "signature_wrong"
    await api.json("POST", path, 422, {**other, "key": public_key_text(OLD.public_key())})
    await api.json("POST", "/api/v1/commands/absent/signatures", 404, other)
    await api.harness.drain()
    assert sent(api) == []


async def test_what_waits_is_not_sent_when_the_device_is_back_and_ends_in_time(api: Api) -> None:
    command = await held(api)
    api.harness.clock.at += 60
    await api.report("edge-1", seq=2)
    await api.harness.drain()
    assert sent(api) == []
    api.harness.clock.at += 3600
    await api.harness.timers.tick()
    found = await api.json("GET", f"/api/v1/commands/{command['command_id']}")
    assert (found["state"], found["reason"]) == ("expired", "not begun in time")
    await api.json("GET", f"/api/v1/commands/{command['command_id']}/payload", 409)


def test_keys_of_people(tmp_path: Path) -> None:
    path = tmp_path / "ada.key"
    key = new_key(path, "a long passphrase")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    opened = open_key(path, "a long passphrase")
    assert opened.public_key() == key.public_key()
    with pytest.raises(CliError, match="wrong passphrase"):
        open_key(path, "another one, as long")
    with pytest.raises(CliError, match="never overwritten"):
        new_key(path, "a long passphrase")
    with pytest.raises(CliError, match="at least 12"):
        new_key(tmp_path / "b", "short")
    path.chmod(0o644)
    with pytest.raises(CliError, match="chmod 600"):
        open_key(path, "a long passphrase")
