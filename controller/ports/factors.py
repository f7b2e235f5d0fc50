"""Second factors outside: passkeys (WebAuthn) of browsers, and the key under which TOTP secrets are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controller.domain.accounts.relying_party import RelyingParty
from controller.ports.errors import ControllerError


class PasskeyError(ControllerError):
    """A browser's answer is no valid registration or use of a passkey; the text says what is wrong with it."""


class PasskeyCounterError(PasskeyError):
    """A right signature with a counter that did not grow: somebody has a copy of the passkey, or replays its answer."""


@dataclass(frozen=True, slots=True)
class PasskeyCredential:
    """What of a passkey is stored: `public_key` is in COSE, `sign_count` what the authenticator counted last."""

    credential_id: bytes
    public_key: bytes
    sign_count: int


class PasskeyVerifier(Protocol):
    """Speaks the JSON of WebAuthn; `challenge` is random and taken once."""

    def registration_options(
        self, party: RelyingParty, user: tuple[bytes, str], challenge: bytes, known: Sequence[bytes]
    ) -> dict[str, Any]:
        """What `navigator.credentials.create` needs; `user`: handle and name, `known`: ids that are registered."""
        ...

    def login_options(self, party: RelyingParty, challenge: bytes, known: Sequence[bytes]) -> dict[str, Any]:
        """What `navigator.credentials.get` needs, for one of the `known` ids."""
        ...

    def registered(self, party: RelyingParty, challenge: bytes, answer: Mapping[str, Any]) -> PasskeyCredential:
        """The new passkey.

        Raises:
            PasskeyError: wrong challenge, origin or relying party, an unverified user, an unknown algorithm.
        """
        ...

    def credential_id(self, answer: Mapping[str, Any]) -> bytes:
        """Which passkey an answer claims to use.

        Raises:
            PasskeyError: none.
        """
        ...

    def used(
        self, party: RelyingParty, challenge: bytes, answer: Mapping[str, Any], credential: PasskeyCredential
    ) -> int:
        """The new `sign_count` after a valid use of `credential`.

        Raises:
            PasskeyError: as `registered`, or a wrong signature.
            PasskeyCounterError: the counter did not grow.
        """
        ...


class SealError(ControllerError):
    """A sealed secret cannot be opened: the key is another one, or what is stored was changed."""


class SecretSealer(Protocol):
    """Seals secrets for the store, so that a copy of the store alone does not reveal them."""

    def seal(self, account_id: str, secret: bytes) -> str: ...

    def open(self, account_id: str, sealed: str) -> bytes:
        """The secret that was sealed for this account.

        Raises:
            SealError: it cannot be opened.
        """
        ...
