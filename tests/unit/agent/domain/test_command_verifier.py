"""Every reason to reject a command."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.verdict import (
    AcceptedCommand,
    CommandVerdict,
    DuplicateCommand,
    ForgedCommand,
    RejectedCommand,
)
from schemas.base import MAX_COMMAND_BYTES
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command, CommandState
from schemas.signing import key_id, sign

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
VERIFIER = CommandVerifier.from_keys("edge-1", [KEY.public_key()], ["rescan", "service.disable"])


def _command(**changes: Any) -> Command:
    fields = {
        "command_id": "c1",
        "device_id": "edge-1",
        "action": "rescan",
        "params": {},
        "issued_at": NOW,
        "expires_at": NOW + timedelta(minutes=10),
        "counter": 5,
    }
    return Command.model_validate({**fields, **changes})


def _verify(raw: bytes, *, known: frozenset[str] = frozenset(), verifier: CommandVerifier = VERIFIER) -> CommandVerdict:
    return verifier.verify(raw, counters=CommandCounters(floor=4), known_command_ids=known, now=NOW)


def _signed(command: Command, key: Ed25519PrivateKey = KEY, kind: str = COMMAND_PAYLOAD_TYPE) -> bytes:
    return sign(command.model_dump_json().encode(), kind, key)


def test_a_valid_command_is_accepted() -> None:
    command = _command()
    assert _verify(_signed(command)) == AcceptedCommand(command, frozenset({key_id(KEY.public_key())}))


@dataclass(frozen=True)
class Forgery:
    raw: bytes
    reason: str


FORGERIES = {
    "unsigned": Forgery(_command().model_dump_json().encode(), "not a signed envelope"),
    "empty": Forgery(b"", "not a signed envelope"),
    "another key": Forgery(_signed(_command(), Ed25519PrivateKey.generate()), "no valid signature"),
    "another purpose": Forgery(_signed(_command(), kind="application/vnd.other"), "another purpose"),
    "another device": Forgery(_signed(_command(device_id="edge-2")), "another device"),
    "too large": Forgery(b" " * (MAX_COMMAND_BYTES + 1), "too large"),
    "not a command": Forgery(sign(b'{"v":1}', COMMAND_PAYLOAD_TYPE, KEY), "not a command"),
    "a field too many": Forgery(
        sign(_command().model_dump_json().encode()[:-1] + b',"shell":"x"}', COMMAND_PAYLOAD_TYPE, KEY), "not a command"
    ),
    "changed after signing": Forgery(_signed(_command()).replace(b'"sig":"', b'"sig":"AAAA'), "no valid signature"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_command_is_recognised(name: str) -> None:
    verdict = _verify(FORGERIES[name].raw)
    assert isinstance(verdict, ForgedCommand)
    assert FORGERIES[name].reason in verdict.reason


def test_an_expired_command_is_rejected() -> None:
    verdict = _verify(_signed(_command(expires_at=NOW)))
    assert isinstance(verdict, RejectedCommand)
    assert verdict.state is CommandState.EXPIRED


@pytest.mark.parametrize(
    ("issued", "expires", "state", "is_wrong_clock"),
    [
        (timedelta(days=3), timedelta(days=3, minutes=10), CommandState.REJECTED, True),
        (-timedelta(days=3), -timedelta(days=2), CommandState.EXPIRED, True),
        (-timedelta(hours=3), -timedelta(hours=2), CommandState.EXPIRED, False),
    ],
)
def test_a_wrong_clock_is_told_from_a_late_command(
    issued: timedelta, expires: timedelta, state: CommandState, is_wrong_clock: bool
) -> None:
    verdict = _verify(_signed(_command(issued_at=NOW + issued, expires_at=NOW + expires)))
    assert isinstance(verdict, RejectedCommand)
    assert (verdict.state, verdict.is_wrong_clock) == (state, is_wrong_clock)
    assert ("that clock may be wrong" in verdict.reason) is is_wrong_clock


@pytest.mark.parametrize("counter", [0, 4])
def test_an_old_counter_is_rejected(counter: int) -> None:
    verdict = _verify(_signed(_command(counter=counter)))
    assert isinstance(verdict, RejectedCommand)
    assert verdict.state is CommandState.REJECTED
    assert "counter" in verdict.reason


def test_a_known_command_is_a_duplicate_even_when_expired_and_old() -> None:
    raw = _signed(_command(counter=1, expires_at=NOW - timedelta(hours=1)))
    assert _verify(raw, known=frozenset({"c1"})) == DuplicateCommand("c1")


def test_an_action_that_is_not_allowed_is_rejected() -> None:
    verdict = _verify(_signed(_command(action="package.upgrade", params={"name": "openssl"})))
    assert isinstance(verdict, RejectedCommand)
    assert "allow-list" in verdict.reason


def test_by_default_no_action_is_allowed_and_no_key_is_trusted() -> None:
    assert isinstance(
        _verify(_signed(_command()), verifier=CommandVerifier.from_keys("edge-1", [KEY.public_key()], [])),
        RejectedCommand,
    )
    assert isinstance(
        _verify(_signed(_command()), verifier=CommandVerifier.from_keys("edge-1", [], ["rescan"])), ForgedCommand
    )
