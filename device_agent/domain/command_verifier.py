"""Decides whether a command may run: signatures, device, duplicates, expiry, counter, the agent's own allow-list."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from device_agent.domain.command_counters import KEY_ACTIONS, CommandCounters, counter_spaces, is_counter_ahead
from device_agent.domain.verdict import (
    EARLIEST_CLOCK,
    AcceptedCommand,
    CommandVerdict,
    DuplicateCommand,
    ForgedCommand,
    RejectedCommand,
)
from schemas.actions import KEYS_INTRODUCE, KEYS_REVOKE
from schemas.base import clean_text
from schemas.commands import COMMAND_PAYLOAD_TYPE, OLD_COMMAND, Command, CommandState
from schemas.signing import SignatureError, key_id, signers

EVERY_ACTION: Final = "*"
MAX_CLOCK_DIFFERENCE: Final = 2 * 86_400.0  # seconds between issue and receipt; no command is valid for longer
_MAX_REASON: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Which signatures an action needs.

    `operators` are operators' keys by key id. `two_person_actions` need an operator's signature besides the
    controller's. With `allow_key_changes` commands may change the trusted keys, whatever the allow-list says.
    """

    operators: Mapping[str, Ed25519PublicKey] = field(default_factory=dict, repr=False)
    two_person_actions: frozenset[str] = frozenset()
    allow_key_changes: bool = False

    @property
    def always_allowed(self) -> frozenset[str]:
        """Actions that need no entry in the allow-list."""
        return KEY_ACTIONS if self.allow_key_changes else frozenset()

    def missing_signature(self, command: Command, signed_by: frozenset[str], controllers: Collection[str]) -> str:
        """Returns which signature is missing; empty when none is."""
        by_operator = bool(signed_by & self.operators.keys())
        by_controller = bool(signed_by & set(controllers))
        if command.action == KEYS_REVOKE:
            return self._missing_for_revocation(
                str(command.params.get("keyid", "")), signed_by, by_operator=by_operator
            )
        if command.action == KEYS_INTRODUCE and by_operator:
            return ""  # the recovery when every key of the controller is lost
        if not by_controller:
            return "no signature by the controller"
        if {command.action, EVERY_ACTION} & self.two_person_actions and not by_operator:
            return f"{command.action} needs a second signature, by an operator's key"
        return ""

    def _missing_for_revocation(self, keyid: str, signed_by: frozenset[str], *, by_operator: bool) -> str:
        # One stolen key must not suffice to revoke the others.
        if self.operators and not by_operator:
            return "revoking a key needs an operator's signature"
        return "" if signed_by - {keyid} else "a key cannot revoke itself"


CONTROLLER_SIGNATURE_ONLY: Final = SignaturePolicy()


@dataclass(frozen=True, slots=True)
class CommandVerifier:
    """Verifies commands for one device; `keys` are the controller's by key id, `allow` the permitted actions."""

    device_id: str
    keys: Mapping[str, Ed25519PublicKey] = field(repr=False)
    allow: frozenset[str]
    signature_policy: SignaturePolicy = CONTROLLER_SIGNATURE_ONLY

    @classmethod
    def from_keys(
        cls,
        device_id: str,
        keys: Collection[Ed25519PublicKey],
        allow: Collection[str],
        signature_policy: SignaturePolicy = CONTROLLER_SIGNATURE_ONLY,
    ) -> "CommandVerifier":
        """Returns a verifier that trusts `keys` and allows the actions `allow`."""
        return cls(device_id, {key_id(key): key for key in keys}, frozenset(allow), signature_policy)

    def verify(
        self, raw: bytes, *, counters: CommandCounters, known_command_ids: Collection[str], now: datetime
    ) -> CommandVerdict:
        """Decides on a received envelope.

        Args:
            raw: the bytes as they were received.
            counters: the highest counters accepted so far.
            known_command_ids: ids of commands that were accepted before.
            now: aware time.
        """
        try:
            trusted = {**self.keys, **self.signature_policy.operators}
            payload, signed_by = signers(raw, COMMAND_PAYLOAD_TYPE, trusted)
            command = Command.model_validate_json(payload)
        except SignatureError as e:
            return ForgedCommand(clean_text(str(e), _MAX_REASON))
        except ValidationError as e:
            return ForgedCommand(clean_text(f"signed, but not a command: {e.errors()[0]['msg']}", _MAX_REASON))
        if command.device_id != self.device_id:
            return ForgedCommand(f"signed for another device: {command.device_id}")
        if command.command_id in known_command_ids:
            return DuplicateCommand(command.command_id)
        if command.is_expired(now):
            reason = _expiry_reason(command, now)
            return RejectedCommand(command.command_id, CommandState.EXPIRED, reason, _is_wrong_clock(command, now))
        spaces = counter_spaces(command, signed_by)
        if early := _early_reason(command, now):
            is_wrong_clock = _is_wrong_clock(command, now)
            return RejectedCommand(command.command_id, CommandState.REJECTED, early, is_wrong_clock)
        if reason := self._rejection_reason(command, signed_by, counters.highest_of(spaces)):
            return RejectedCommand(command.command_id, CommandState.REJECTED, reason)
        return AcceptedCommand(command, spaces)

    def _rejection_reason(self, command: Command, signed_by: frozenset[str], last_counter: int) -> str:
        if command.counter <= last_counter:
            return f"counter {command.counter} is not above {last_counter}: {OLD_COMMAND}"
        policy = self.signature_policy
        if missing := policy.missing_signature(command, signed_by, self.keys.keys()):
            return missing
        if command.action not in self.allow and command.action not in policy.always_allowed:
            return f"{command.action} is not in this agent's allow-list"
        return ""


def _is_wrong_clock(command: Command, now: datetime) -> bool:
    return abs((now - command.issued_at).total_seconds()) > MAX_CLOCK_DIFFERENCE


def _early_reason(command: Command, now: datetime) -> str:
    """Returns why a command is not of this time: such a one would use up counters that its key needs later."""
    # A clock that was never set cannot tell that a command is early.
    if now >= EARLIEST_CLOCK and command.issued_at > now and _is_wrong_clock(command, now):
        clock = f"it is {now.isoformat(timespec='seconds')} by the device's clock: that clock may be wrong"
        return f"issued at {command.issued_at.isoformat()}; {clock}"
    if is_counter_ahead(command):
        return f"counter {command.counter} is too far ahead of {command.issued_at.isoformat()}, when it was issued"
    return ""


def _expiry_reason(command: Command, now: datetime) -> str:
    """Tells a late command from a wrong clock of the device, which has no other way to report its clock."""
    text = f"expired at {command.expires_at.isoformat()}"
    if _is_wrong_clock(command, now):
        return f"{text}; it is {now.isoformat(timespec='seconds')} by the device's clock: that clock may be wrong"
    return text
