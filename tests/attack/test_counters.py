"""A stolen signing key that is used to lock the owner of a device out: counters far ahead, in every space."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from device_agent.commands.journal import Journal
from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier, SignaturePolicy
from device_agent.domain.verdict import AcceptedCommand, CommandVerdict, RejectedCommand
from schemas.base import MAX_COUNTER
from schemas.commands import COMMAND_PAYLOAD_TYPE, MAX_COUNTER_AHEAD, Command, ParamValue
from schemas.signing import countersign, key_id, sign, to_be_signed

NOW = datetime(2026, 11, 26, 10, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
STOLEN, OWN, OPERATOR = (Ed25519PrivateKey.generate() for _ in range(3))
POLICY = SignaturePolicy({key_id(OPERATOR.public_key()): OPERATOR.public_key()}, frozenset(), allow_key_changes=True)


@dataclass
class Target:
    """A device that trusts two keys of the controller, and an operator's where `policy` has one."""

    policy: SignaturePolicy = POLICY
    counters: CommandCounters = field(default_factory=CommandCounters)
    known: set[str] = field(default_factory=set)

    def send(self, raw: bytes, now: datetime = NOW) -> CommandVerdict:
        keys = [STOLEN.public_key(), OWN.public_key()]
        verifier = CommandVerifier.from_keys("edge-1", keys, ["rescan"], self.policy)
        verdict = verifier.verify(raw, counters=self.counters, known_command_ids=self.known, now=now)
        if isinstance(verdict, AcceptedCommand):
            self.counters = self.counters.with_accepted(verdict.command.counter, verdict.spaces)
            self.known.add(verdict.command.command_id)
        return verdict


def command(
    counter: int,
    *keys: Ed25519PrivateKey,
    action: str = "rescan",
    issued: datetime = NOW,
    name: str = "",
    params: Mapping[str, ParamValue] = MappingProxyType({}),
) -> bytes:
    made = Command(
        command_id=name or f"c{counter}", device_id="edge-1", action=action, params=dict(params), issued_at=issued,
        expires_at=issued + timedelta(minutes=10), counter=counter,
    )  # fmt: skip
    payload = made.model_dump_json().encode()
    more = {key_id(key.public_key()): key.sign(to_be_signed(COMMAND_PAYLOAD_TYPE, payload)) for key in keys[1:]}
    return countersign(sign(payload, COMMAND_PAYLOAD_TYPE, keys[0]), more)


def is_accepted(verdict: CommandVerdict) -> bool:
    return isinstance(verdict, AcceptedCommand)


def revocation(counter: int, *keys: Ed25519PrivateKey) -> bytes:
    return command(counter, *keys, action="keys.revoke", params={"keyid": key_id(STOLEN.public_key())})


@pytest.mark.parametrize("counter", [MAX_COUNTER, MAX_COUNTER - 1, MS + MAX_COUNTER_AHEAD + 1])
def test_a_counter_far_ahead_of_its_issue_is_refused_and_uses_nothing_up(counter: int) -> None:
    target = Target()
    assert isinstance(target.send(command(counter, STOLEN)), RejectedCommand)
    assert is_accepted(target.send(command(MS + 1, STOLEN)))


def test_a_command_of_the_far_future_is_refused_and_uses_nothing_up() -> None:
    target, later = Target(), NOW + timedelta(days=400)
    far = command(int(later.timestamp() * 1000), STOLEN, issued=later)
    assert isinstance(target.send(far), RejectedCommand)
    assert is_accepted(target.send(command(MS + 1, STOLEN)))


def test_one_key_uses_up_no_counter_of_another() -> None:
    target = Target()
    assert is_accepted(target.send(command(MS + MAX_COUNTER_AHEAD, STOLEN)))
    assert not is_accepted(target.send(command(MS + 1, STOLEN)))
    assert is_accepted(target.send(command(MS + 1, OWN, name="own")))
    assert is_accepted(target.send(command(MS + 2, STOLEN, OWN, name="both"))), "as while keys change"


@pytest.mark.parametrize("keys", [(STOLEN, OPERATOR), (OPERATOR,), (OWN, OPERATOR)])
def test_the_operator_revokes_the_key_whatever_its_thief_did(keys: tuple[Ed25519PrivateKey, ...]) -> None:
    target = Target()
    assert is_accepted(target.send(command(MS + MAX_COUNTER_AHEAD, STOLEN)))
    key: dict[str, ParamValue] = {"key": "ed25519:" + "A" * 43 + "="}
    assert is_accepted(
        target.send(command(MS + MAX_COUNTER_AHEAD, STOLEN, action="keys.introduce", name="k", params=key))
    )
    assert is_accepted(target.send(revocation(MS + 1, *keys)))


def test_commands_use_up_no_counter_of_key_changes() -> None:
    target = Target(SignaturePolicy(allow_key_changes=True))
    assert is_accepted(target.send(command(MS + MAX_COUNTER_AHEAD, OWN)))
    assert is_accepted(target.send(revocation(MS + 1, OWN)))


_SIGNERS = st.sets(st.sampled_from("sop"), min_size=1)
_SENT = st.lists(
    st.tuples(st.integers(0, 8), _SIGNERS, st.sampled_from(["rescan", "keys.revoke"])),
    max_size=12,
)


@given(sent=_SENT)
def test_no_envelope_is_accepted_twice_even_if_its_id_is_forgotten(sent: list[tuple[int, set[str], str]]) -> None:
    named = {"s": STOLEN, "o": OWN, "p": OPERATOR}
    target = Target()
    for number, (counter, signers, action) in enumerate(sent):
        keys = [named[one] for one in sorted(signers)]
        params: dict[str, ParamValue] = {"keyid": "0" * 16} if action == "keys.revoke" else {}
        raw = command(MS + counter, *keys, action=action, name=f"n{number}", params=params)
        if is_accepted(target.send(raw)):
            target.known.clear()
            assert not is_accepted(target.send(raw))


def test_counters_of_each_key_survive_a_restart_and_an_older_journal_is_read(tmp_path: Path) -> None:
    (tmp_path / "commands.json").write_text('{"v":1,"counter":7,"entries":[]}')
    journal = Journal(tmp_path)
    spaces = frozenset({key_id(OWN.public_key()), key_id(OWN.public_key()) + ":keys"})
    assert journal.counters.highest_of(spaces) == 7
    made = Command(
        command_id="c", device_id="edge-1", action="rescan", params={}, issued_at=NOW, expires_at=NOW, counter=MS
    )
    journal.record_accepted(made, frozenset({key_id(OWN.public_key())}), NOW)
    journal.close()
    journal = Journal(tmp_path)
    assert journal.counters.highest_of({key_id(OWN.public_key())}) == MS
    assert journal.counters.highest_of({key_id(OWN.public_key()) + ":keys"}) == 7
    journal.close()
