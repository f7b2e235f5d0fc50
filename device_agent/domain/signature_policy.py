"""How many signatures a command needs, and whose: what a controller alone may not have a device do."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.actions import KEYS_INTRODUCE, KEYS_REVOKE
from schemas.commands import Command

EVERY_ACTION: Final = "*"
_OF_KEYS: Final = frozenset({KEYS_INTRODUCE, KEYS_REVOKE})


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """`operators`: keys of people, by name; `two`: actions that need one of them beside the controller's.

    `changes_keys`: commands may change which keys are trusted, whatever the allow-list says.
    """

    operators: Mapping[str, Ed25519PublicKey] = field(default_factory=dict, repr=False)
    two: frozenset[str] = frozenset()
    changes_keys: bool = False

    @property
    def always(self) -> frozenset[str]:
        """Actions that need no place in the allow-list."""
        return _OF_KEYS if self.changes_keys else frozenset()

    def lacking(self, command: Command, signed_by: frozenset[str], controllers: Collection[str]) -> str:
        """Which signature is missing; empty when none is."""
        by_operator = bool(signed_by & self.operators.keys())
        by_controller = bool(signed_by & set(controllers))
        if command.action == KEYS_REVOKE:
            return self._revoking(str(command.params.get("keyid", "")), signed_by, by_operator=by_operator)
        if command.action == KEYS_INTRODUCE and by_operator:
            return ""  # the way back when every key of the controller was lost
        if not by_controller:
            return "no signature by the controller"
        if (command.action in self.two or EVERY_ACTION in self.two) and not by_operator:
            return f"{command.action} needs a second signature, by an operator's key"
        return ""

    def _revoking(self, keyid: str, signed_by: frozenset[str], *, by_operator: bool) -> str:
        # Whoever stole one key must not be able to shut out the others with it.
        if self.operators and not by_operator:
            return "a key is revoked with an operator's signature"
        return "" if signed_by - {keyid} else "a key is not revoked by itself alone"


NO_TERMS: Final = SignaturePolicy()
