"""A guard that trusts what the key ring says at the moment: keys are introduced, end, and are revoked."""

from collections.abc import Collection, Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.signature_policy import SignaturePolicy
from device_agent.domain.verdict import CommandVerdict, ForgedCommand
from device_agent.keyring import Keyring, KeyringError
from device_agent.settings import CommandSettings
from schemas.signing import key_id, parse_public_key


class KeyringVerifier:
    """`Judge` over a key ring."""

    def __init__(self, device_id: str, settings: CommandSettings, ring: Keyring) -> None:
        """`settings` have the operators' keys, and what needs one of them."""
        self._device_id = device_id
        self._allow = settings.allow
        self._ring = ring
        operators = [parse_public_key(text) for text in settings.operator_keys]
        self._terms = SignaturePolicy(
            {key_id(key): key for key in operators}, frozenset(settings.two_signatures), settings.change_keys
        )

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> CommandVerdict:
        """See `CommandVerifier.judge`; with a damaged key ring nobody is trusted."""
        try:
            keys = self._keys(now.timestamp())
        except KeyringError as e:
            return ForgedCommand(str(e))
        guard = CommandVerifier.of(self._device_id, keys.values(), self._allow, self._terms)
        return guard.judge(raw, last_counter=last_counter, known=known, now=now)

    def _keys(self, now: float) -> Mapping[str, Ed25519PublicKey]:
        return {name: parse_public_key(text) for name, text in self._ring.trusted(now).items()}
