"""Second factors of an account, as they are stored, and what a session has to do about them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_PASSKEYS: Final = 10  # of one account
RECOVERY_CODES: Final = 10


class FactorKind(StrEnum):
    """With what a session gave its second factor."""

    PASSKEY = "passkey"  # a WebAuthn credential
    TOTP = "totp"  # a time-based one-time code of an authenticator app
    RECOVERY = "recovery"  # a recovery code, for the day on which the others are lost
    SSO = "sso"  # the provider of single sign-on vouched for one


class FactorGate(StrEnum):
    """What a session has to do about its second factor before it may do anything else."""

    OPEN = "open"  # nothing
    GIVE = "factor_needed"  # its account has a factor, and the session gave none yet
    REGISTER = "factor_registration_needed"  # its account has none, and needs one


@dataclass(frozen=True, slots=True)
class Passkey:
    """A WebAuthn credential; `credential_id` and `public_key` (COSE) as the authenticator made them."""

    account_id: str
    credential_id: bytes
    public_key: bytes
    sign_count: int
    name: str
    created_at: float
    last_used_at: float = 0.0  # Unix seconds; 0: never


@dataclass(frozen=True, slots=True)
class Totp:
    """A TOTP secret, sealed; `last_step`: the last time step whose code was taken, so that none is taken twice.

    It counts as a factor from `confirmed_at` (Unix seconds) on; 0: a code was not shown yet.
    """

    account_id: str
    secret: str
    confirmed_at: float = 0.0
    last_step: int = 0


@dataclass(frozen=True, slots=True)
class Factors:
    """All factors of an account; `recovery_codes`: how many are left."""

    passkeys: tuple[Passkey, ...] = ()
    totp: Totp | None = None
    recovery_codes: int = 0

    @property
    def count(self) -> int:
        """How many second factors there are; recovery codes are none."""
        return len(self.passkeys) + (self.totp is not None and self.totp.confirmed_at > 0.0)

    @property
    def exist(self) -> bool:
        """Whether there is a second factor."""
        return self.count > 0
