"""Accounts, their sessions and second factors in the store; and the hashing of passwords."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.accounts.account import Account, AccountDecision, AccountRefusal
from controller.domain.accounts.factors import Factors, Passkey, Totp
from controller.domain.accounts.session import Session
from controller.ports.errors import ControllerError
from controller.ports.store import StoreWrites

Standing = Callable[[], Awaitable[frozenset[str]]]  # what has not ended: see `Principal.standing`


class TooManyLoginsError(ControllerError):
    """As many passwords wait to be checked as may; nothing was hashed."""


@dataclass(frozen=True, slots=True)
class AccountOverview:
    """An account with what hangs on it, for lists."""

    account: Account
    factors: Factors
    sessions: int
    tokens: int


class AccountStore(Protocol):
    """Accounts and what hangs on them. A change with `writes` stores both in one transaction, or neither."""

    async def accounts(self) -> Sequence[Account]:
        """Every account, by name."""
        ...

    async def account(self, account_id: str) -> Account | None: ...

    async def account_named(self, name: str) -> Account | None:
        """The account with this login name; capitals count as small letters."""
        ...

    async def account_with_code(self, digest: str) -> Account | None:
        """The account with the one-time code of this digest; whether the code still counts is not looked at."""
        ...

    async def account_of_subject(self, issuer: str, subject: str) -> Account | None:
        """The account with this identity at an OpenID provider."""
        ...

    async def overviews(self) -> Sequence[AccountOverview]:
        """Every account with what hangs on it, by name."""
        ...

    async def add_account(self, account: Account, writes: StoreWrites) -> Account | AccountRefusal:
        """Adds an account, unless its name was ever given or there are too many."""
        ...

    async def change_account(
        self,
        account_id: str,
        decide: AccountDecision,
        now: float,
        writes: StoreWrites,
        *,
        resets_factors: bool = False,
    ) -> Account | AccountRefusal:
        """Stores what `decide` makes of the account, in the transaction that reads it; returns the account after.

        In the same transaction an account that is disabled loses its sessions and one-time code, and its tokens have
        expired at `now` (Unix seconds); one with a new password loses its sessions. With `resets_factors` it
        loses its sessions and all second factors.
        """
        ...

    async def session(self, digest: str) -> tuple[Session, Account] | None:
        """The session with this digest, and its account; whether it is over is for the caller to see."""
        ...

    async def sessions(self, account_id: str) -> Sequence[Session]:
        """The sessions of an account, the one used last first; those that are over may be among them."""
        ...

    async def add_session(
        self, session: Session, writes: StoreWrites, *, replaces: str = "", password_at: float | None = None
    ) -> bool:
        """Adds a session, unless its account was disabled meanwhile; `replaces`: the digest of the one before.

        `password_at`: the account's as it was when the password was checked; None if none was. If it has got another
        password since, nothing is added: what ended its sessions ended this sign-in too.
        With `replaces` the former session has to be there still, and ends in the same transaction. Of an account's
        sessions beyond `MAX_SESSIONS` those used longest ago end, and sessions of all
        accounts that are over are deleted.
        """
        ...

    async def touch_session(self, digest: str, at: float) -> None:
        """Stores when a session was used last (Unix seconds)."""
        ...

    async def end_sessions(self, account_id: str, writes: StoreWrites, *, session_id: str = "", but: str = "") -> int:
        """Ends one session of an account by its `session_id`, or all but the one with the id `but`; returns how many.

        `writes` is committed only if a session ended.
        """
        ...

    async def touch_token(self, digest: str, at: float, peer: str) -> None:
        """Stores when (Unix seconds) and from which address a token was used last."""
        ...


class SsoTrials(Protocol):
    """Remembers with which configuration of single sign-on somebody came in last."""

    async def tried_configuration(self) -> str:
        """Its digest; "" if nobody ever did."""
        ...

    async def note_tried(self, configuration: str) -> None: ...


class FactorStore(Protocol):
    """Second factors of accounts. A change with `writes` stores both in one transaction, or neither.

    `session`: digest of the session that makes a change; nothing changes if it has ended meanwhile, as with a reset of
    the factors. None: no session makes it.
    """

    async def factors(self, account_id: str) -> Factors: ...

    async def add_passkey(
        self, passkey: Passkey, writes: StoreWrites, *, session: str | None = None, as_first: bool = False
    ) -> bool:
        """Adds a passkey, unless its id is known already or the account has `MAX_PASSKEYS`.

        `as_first`: unless the account has a factor by now.
        """
        ...

    async def use_passkey(self, credential_id: bytes, sign_count: int, at: float) -> bool:
        """Notes a use; False, and nothing is stored, if the counter did not grow (both may stay 0)."""
        ...

    async def remove_passkey(
        self,
        account_id: str,
        credential_id: bytes,
        writes: StoreWrites,
        *,
        session: str | None = None,
        keeps_one: bool = False,
    ) -> bool:
        """Deletes a passkey; with `keeps_one` not the last factor of the account."""
        ...

    async def put_totp(
        self, totp: Totp, writes: StoreWrites, *, session: str | None = None, as_first: bool = False
    ) -> bool:
        """Stores the TOTP secret of an account, in place of another; `as_first`: unless it has a factor by now."""
        ...

    async def use_totp(self, account_id: str, step: int) -> bool:
        """Notes the time step of a code; False if this or a later one was taken before."""
        ...

    async def remove_totp(
        self, account_id: str, writes: StoreWrites, *, session: str | None = None, keeps_one: bool = False
    ) -> bool:
        """Deletes the TOTP secret; `keeps_one` as of `remove_passkey`."""
        ...

    async def put_recovery_codes(
        self, account_id: str, digests: Sequence[str], writes: StoreWrites, *, session: str | None = None
    ) -> bool:
        """Replaces the recovery codes of an account; each by the SHA-256 of its text in hex."""
        ...

    async def use_recovery_code(self, account_id: str, digest: str, writes: StoreWrites) -> bool:
        """Deletes the recovery code; False, and nothing is stored, if there is none such."""
        ...

    async def are_required(self) -> bool:
        """Whether `require` was ever called."""
        ...

    async def require(self) -> None:
        """Stores that an administrator has a factor, and for good: its loss must not open the accounts again."""
        ...


class PasswordHasher(Protocol):
    """Hashes passwords one at a time, away from the event loop; of waiting ones there are at most a few.

    Each call costs exactly one hash.
    """

    async def hashed(self, password: str) -> str:
        """The hash in PHC form.

        Raises:
            TooManyLoginsError: too many wait already.
        """
        ...

    async def matches(self, password: str, phc: str) -> bool:
        """Whether it is the password of this hash; with an empty hash False, at the cost of one.

        Raises:
            TooManyLoginsError: too many wait already.
        """
        ...

    def is_outdated(self, phc: str) -> bool:
        """Whether the hash was made with other parameters than those in use now."""
        ...
