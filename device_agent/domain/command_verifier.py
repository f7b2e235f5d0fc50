"""Decides whether a command may run: signature, device, memory, expiry, counter, the agent's own allow-list."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from device_agent.domain.signature_policy import NO_TERMS, SignaturePolicy
from device_agent.domain.verdict import (
    AcceptedCommand,
    CommandVerdict,
    DuplicateCommand,
    ForgedCommand,
    RejectedCommand,
)
from schemas.base import clean_text
from schemas.commands import COMMAND_PAYLOAD_TYPE, OLD_COMMAND, Command, CommandState
from schemas.signing import SignatureError, key_id, signers

_REASON: Final = 200  # characters
WILD_CLOCK: Final = 2 * 86_400.0  # seconds between order and receipt that no command lives


@dataclass(frozen=True, slots=True)
class CommandVerifier:
    """What the agent trusts and allows."""

    device_id: str
    keys: Mapping[str, Ed25519PublicKey] = field(repr=False)
    allow: frozenset[str]
    terms: SignaturePolicy = NO_TERMS

    @classmethod
    def of(
        cls,
        device_id: str,
        keys: Collection[Ed25519PublicKey],
        allow: Collection[str],
        terms: SignaturePolicy = NO_TERMS,
    ) -> "CommandVerifier":
        """A guard that trusts `keys` and allows the actions `allow`."""
        return cls(device_id, {key_id(key): key for key in keys}, frozenset(allow), terms)

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> CommandVerdict:
        """Decide on a received envelope.

        Args:
            raw: the bytes as they came.
            last_counter: the highest counter taken so far, -1 when there was none.
            known: ids of commands taken before.
            now: aware time.
        """
        try:
            payload, signed_by = signers(raw, COMMAND_PAYLOAD_TYPE, {**self.keys, **self.terms.operators})
            command = Command.model_validate_json(payload)
        except SignatureError as e:
            return ForgedCommand(clean_text(str(e), _REASON))
        except ValidationError as e:
            return ForgedCommand(clean_text(f"signed, but not a command: {e.errors()[0]['msg']}", _REASON))
        if command.device_id != self.device_id:
            return ForgedCommand(f"signed for another device: {command.device_id}")
        return self._judge_own(command, signed_by, last_counter, known, now)

    def _judge_own(
        self, command: Command, signed_by: frozenset[str], last_counter: int, known: Collection[str], now: datetime
    ) -> CommandVerdict:
        if command.command_id in known:
            return DuplicateCommand(command.command_id)
        if command.is_expired(now):
            return RejectedCommand(command.command_id, CommandState.EXPIRED, _expired(command, now))
        if command.counter <= last_counter:
            reason = f"counter {command.counter} is not above {last_counter}: {OLD_COMMAND}"
            return RejectedCommand(command.command_id, CommandState.REJECTED, reason)
        lacking = self.terms.lacking(command, signed_by, self.keys.keys())
        if lacking:
            return RejectedCommand(command.command_id, CommandState.REJECTED, lacking)
        if command.action not in self.allow and command.action not in self.terms.always:
            reason = f"{command.action} is not in this agent's allow-list"
            return RejectedCommand(command.command_id, CommandState.REJECTED, reason)
        return AcceptedCommand(command)


def _expired(command: Command, now: datetime) -> str:
    """With what tells a late command from a clock that is wrong: the device may have no other way to say so."""
    text = f"expired at {command.expires_at.isoformat()}"
    if abs((now - command.issued_at).total_seconds()) > WILD_CLOCK:
        return f"{text}; it is {now.isoformat(timespec='seconds')} by the device's clock: that clock may be wrong"
    return text
