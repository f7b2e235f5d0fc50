"""Which keys a device trusts: introduced with an overlap, expired, revoked, across restarts and kills."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.actions.base import ActionError
from device_agent.actions.trust import RevokeKey, TrustKey
from device_agent.commands.journal import Journal
from device_agent.commands.keyring_verifier import KeyringVerifier
from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier, SignaturePolicy
from device_agent.domain.verdict import AcceptedCommand, CommandVerdict, ForgedCommand, RejectedCommand
from device_agent.keyring import Keyring, KeyringError
from device_agent.settings import CommandSettings
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command, CommandState
from schemas.signing import countersign, key_id, public_key_text, sign, to_be_signed

NOW = datetime(2026, 11, 26, 10, tzinfo=UTC)
AT = NOW.timestamp()
SPACES = frozenset(["0000000000000000"])
OLD, NEW, OPERATOR = (Ed25519PrivateKey.generate() for _ in range(3))


def text(key: Ed25519PrivateKey) -> str:
    return public_key_text(key.public_key())


def keyid_of(key: Ed25519PrivateKey) -> str:
    return key_id(key.public_key())


def command(*keys: Ed25519PrivateKey, action: str = "rescan", issued: datetime = NOW, **params: Any) -> bytes:
    """Returns a command signed by all of the keys."""
    command = Command(
        command_id="c1", device_id="edge-1", action=action, params=params, issued_at=issued,
        expires_at=issued + timedelta(minutes=10), counter=5,
    )  # fmt: skip
    payload = command.model_dump_json().encode()
    more = {keyid_of(key): key.sign(to_be_signed(COMMAND_PAYLOAD_TYPE, payload)) for key in keys[1:]}
    return countersign(sign(payload, COMMAND_PAYLOAD_TYPE, keys[0]), more)


def verify(folder: Path, raw: bytes, now: datetime = NOW, **settings: Any) -> CommandVerdict:
    """Returns the verdict of a device with the key OLD."""
    given = CommandSettings(controller_keys=(text(OLD),), allow=("rescan",), **settings)
    verifier = KeyringVerifier("edge-1", given, Keyring(folder, given.controller_keys))
    return verifier.verify(raw, counters=CommandCounters(floor=4), known_command_ids=frozenset(), now=now)


def reason(verdict: CommandVerdict) -> str:
    assert isinstance(verdict, RejectedCommand | ForgedCommand), verdict
    return verdict.reason


def introduce(folder: Path, now: float = AT, **more: Any) -> None:
    action = TrustKey(Keyring(folder, (text(OLD),)), lambda: now)
    params = {"key": text(NEW), **more}
    action.check(params)
    before = action.plan(params).before
    action.apply(params, before)
    assert action.verify(params, before).is_reached


def test_an_introduced_key_is_trusted_and_the_old_one_until_it_expires(tmp_path: Path) -> None:
    assert isinstance(verify(tmp_path, command(NEW)), ForgedCommand)
    introduce(tmp_path, retire=keyid_of(OLD), overlap=3600)
    assert isinstance(verify(tmp_path, command(NEW)), AcceptedCommand)
    assert isinstance(verify(tmp_path, command(OLD)), AcceptedCommand)
    later = NOW + timedelta(hours=1)
    assert isinstance(verify(tmp_path, command(OLD, issued=later), later), ForgedCommand)
    assert isinstance(verify(tmp_path, command(NEW, issued=later), later), AcceptedCommand)


def test_introducing_a_key_again_does_not_lengthen_the_overlap(tmp_path: Path) -> None:
    introduce(tmp_path, retire=keyid_of(OLD), overlap=3600)
    introduce(tmp_path, retire=keyid_of(OLD), overlap=7200)
    assert set(Keyring(tmp_path, (text(OLD),)).trusted(AT + 3600)) == {keyid_of(NEW)}


def test_a_revoked_key_is_never_trusted_again(tmp_path: Path) -> None:
    introduce(tmp_path)
    keyring = Keyring(tmp_path, (text(OLD),))
    RevokeKey(keyring, lambda: AT).apply({"keyid": keyid_of(OLD)}, {})
    assert isinstance(verify(tmp_path, command(OLD)), ForgedCommand)  # though the configuration names it
    with pytest.raises(ActionError, match="cannot be trusted again"):
        TrustKey(keyring, lambda: AT).apply({"key": text(OLD)}, {})
    with pytest.raises(ActionError, match="the last key"):
        RevokeKey(keyring, lambda: AT).apply({"keyid": keyid_of(NEW)}, {})


def test_a_key_cannot_revoke_itself_and_with_operators_only_they_revoke(tmp_path: Path) -> None:
    introduce(tmp_path)
    alone = verify(tmp_path, command(OLD, action="keys.revoke", keyid=keyid_of(OLD)))
    assert reason(alone) == "a key cannot revoke itself"
    assert isinstance(verify(tmp_path, command(NEW, action="keys.revoke", keyid=keyid_of(OLD))), AcceptedCommand)
    operators: dict[str, Any] = {"operator_keys": (text(OPERATOR),)}
    stolen = verify(tmp_path, command(OLD, action="keys.revoke", keyid=keyid_of(NEW)), **operators)
    assert reason(stolen) == "revoking a key needs an operator's signature"
    assert isinstance(
        verify(tmp_path, command(OPERATOR, action="keys.revoke", keyid=keyid_of(OLD)), **operators), AcceptedCommand
    )


def test_key_changes_can_be_forbidden(tmp_path: Path) -> None:
    raw = command(OLD, action="keys.introduce", key=text(NEW))
    assert isinstance(verify(tmp_path, raw), AcceptedCommand)
    assert "allow-list" in reason(verify(tmp_path, raw, change_keys=False))


def test_two_person_actions_need_two_signatures(tmp_path: Path) -> None:
    two: dict[str, Any] = {"operator_keys": (text(OPERATOR),), "two_signatures": ("rescan",)}
    assert "second signature" in reason(verify(tmp_path, command(OLD), **two))
    assert reason(verify(tmp_path, command(OPERATOR), **two)) == "no signature by the controller"
    assert "second signature" in reason(verify(tmp_path, command(OLD, OLD), **two))
    assert isinstance(verify(tmp_path, command(OLD, OPERATOR), **two), AcceptedCommand)
    assert isinstance(verify(tmp_path, command(OLD, OPERATOR), **{**two, "two_signatures": ("*",)}), AcceptedCommand)
    with pytest.raises(ValueError, match="without them there is no second signature"):
        CommandSettings(two_signatures=("rescan",))


def test_the_second_signature_covers_the_same_bytes(tmp_path: Path) -> None:
    two: dict[str, Any] = {"operator_keys": (text(OPERATOR),), "two_signatures": ("rescan",)}
    other = OPERATOR.sign(to_be_signed(COMMAND_PAYLOAD_TYPE, b"another command"))
    forged = countersign(command(OLD), {keyid_of(OPERATOR): other})
    assert "second signature" in reason(verify(tmp_path, forged, **two))


def test_the_reason_names_a_wrong_clock(tmp_path: Path) -> None:
    ahead = verify(tmp_path, command(OLD), NOW + timedelta(days=2000))
    assert isinstance(ahead, RejectedCommand)
    assert ahead.state is CommandState.EXPIRED
    assert "that clock may be wrong" in ahead.reason
    late = verify(tmp_path, command(OLD), NOW + timedelta(minutes=11))
    assert "clock" not in reason(late)
    behind = datetime(1970, 1, 2, tzinfo=UTC)
    assert isinstance(verify(tmp_path, command(OLD), behind), AcceptedCommand)
    verifier = CommandVerifier.from_keys("edge-1", [OLD.public_key()], ["rescan"], SignaturePolicy())
    replayed = verifier.verify(
        command(OLD), counters=CommandCounters(floor=5), known_command_ids=frozenset(), now=behind
    )
    assert "an old command again" in reason(replayed)  # the counter needs no clock


def test_with_a_damaged_keyring_no_key_is_trusted(tmp_path: Path) -> None:
    introduce(tmp_path)
    whole = (tmp_path / "keys.json").read_bytes()
    (tmp_path / "keys.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KeyringError, match="is damaged"):
        Keyring(tmp_path, (text(OLD),)).trusted(AT)
    assert "is damaged" in reason(verify(tmp_path, command(OLD)))


_KILLED = """
import os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from device_agent.commands.journal import Journal
from device_agent.keyring import Keyring
from schemas.commands import Command

folder, step, key = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
journal = Journal(folder)
count = 0
def dies(real):
    def call(*arguments, **named):
        global count
        count += 1
        if count == step:
            os._exit(9)
        return real(*arguments, **named)
    return call
for name in ("open", "fsync", "replace", "rename", "fchmod", "close"):
    setattr(os, name, dies(getattr(os, name)))
now = datetime(2026, 11, 26, 10, tzinfo=UTC)
command = Command(command_id="c7", device_id="d", action="rescan", params={}, issued_at=now,
                  expires_at=now + timedelta(hours=1), counter=7)
journal.record_accepted(command, frozenset(["0000000000000000"]), now)
print("accepted", flush=True)
Keyring(folder, ()).trust(key, retire="", until=0.0, now=0.0)
print("introduced", flush=True)
"""


@pytest.mark.parametrize("step", range(1, 14))
def test_counter_and_keys_survive_a_kill_at_each_step(tmp_path: Path, step: int) -> None:
    """What was reported as written is on the disk; anything else is there as a whole or not at all."""
    journal = Journal(tmp_path)
    first = Command(
        command_id="c6", device_id="d", action="rescan", params={}, issued_at=NOW, expires_at=NOW, counter=6
    )
    journal.record_accepted(first, SPACES, NOW)
    journal.close()
    argv = [sys.executable, "-c", _KILLED, str(tmp_path), str(step), text(NEW)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 9), done.stderr
    (tmp_path / ".commands.json.new").write_bytes(b'{"v":1,"counter":99,"ent')  # as a power loss may leave it
    (tmp_path / ".keys.json.new").write_bytes(b"\0" * 512)
    after = Journal(tmp_path)
    try:
        highest = after.counters.highest_of(SPACES)
        assert highest in ((7,) if "accepted" in done.stdout else (6, 7))
        assert (highest == 7) is ("c7" in after.command_ids())
    finally:
        after.close()
    trusted = Keyring(tmp_path, ()).trusted(AT)
    assert set(trusted) in (({keyid_of(NEW)},) if "introduced" in done.stdout else (set(), {keyid_of(NEW)}))
