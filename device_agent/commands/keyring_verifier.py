"""Verifies commands with the keys that the keyring trusts at that moment. Imports cryptography: loaded when needed."""

from collections.abc import Collection, Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier, SignaturePolicy
from device_agent.domain.verdict import CommandVerdict, ForgedCommand
from device_agent.keyring import Keyring, KeyringError
from device_agent.settings import CommandSettings
from schemas.signing import key_id, parse_public_key


class KeyringVerifier:
    """An `EnvelopeVerifier` over a keyring; `settings` have the operators' keys and the actions that need them."""

    def __init__(self, device_id: str, settings: CommandSettings, keyring: Keyring) -> None:
        self._device_id = device_id
        self._allow = settings.allow
        self._keyring = keyring
        operators = [parse_public_key(text) for text in settings.operator_keys]
        self._signature_policy = SignaturePolicy(
            {key_id(key): key for key in operators}, frozenset(settings.two_signatures), settings.change_keys
        )

    def verify(
        self, raw: bytes, *, counters: CommandCounters, known_command_ids: Collection[str], now: datetime
    ) -> CommandVerdict:
        """Decides as `CommandVerifier.verify`; with a damaged keyring no key is trusted."""
        try:
            keys = self._trusted_keys(now.timestamp())
        except KeyringError as e:
            return ForgedCommand(str(e))
        verifier = CommandVerifier(self._device_id, keys, frozenset(self._allow), self._signature_policy)
        return verifier.verify(raw, counters=counters, known_command_ids=known_command_ids, now=now)

    def _trusted_keys(self, now: float) -> Mapping[str, Ed25519PublicKey]:
        return {keyid: parse_public_key(text) for keyid, text in self._keyring.trusted(now).items()}
