"""An account, and the changes of accounts that are decided over all of them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.accounts.roles import Roles
from controller.domain.principal import KINSHIP, MakingRecord, Principal, account_key, is_reserved, joined_makers
from controller.domain.scopes import Scope

MAX_ACCOUNTS: Final = 1000
MAX_NAME: Final = 64  # characters
# Read for one another, in one font or another.
_READ_AS: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", ".": "-", "_": "-"})
_PAIRS: Final = (("rn", "m"), ("vv", "w"))
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in; `account_id` and `name` are never given to another account.

    `password`: an argon2id hash in PHC form, empty without a password. `issuer` and `subject`: the identity at an
    OpenID provider, empty without one. `makers`: who made the account or set its password or factors anew, see
    `Principal`. `setup_digest`: SHA-256 of the one-time code that sets the first password and factor until
    `setup_until` (Unix seconds), empty without one.
    """

    account_id: str
    name: str
    role: str
    created_at: float
    enabled: bool = True
    password: str = ""
    issuer: str = ""
    subject: str = ""
    makers: tuple[MakingRecord, ...] = ()
    setup_digest: str = ""
    setup_until: float = 0.0
    last_login_at: float = 0.0  # Unix seconds; 0: never
    password_at: float = 0.0  # Unix seconds of the last change; 0: never

    @property
    def key(self) -> str:
        """The key of its `Principal`."""
        return account_key(self.account_id)

    @property
    def in_session(self) -> Principal:
        """Who acts in a session of this account."""
        return Principal(self.key, self.name, self.makers, in_session=True)

    def has_setup_code(self, digest: str, now: float) -> bool:
        """Whether this is the digest of its one-time code, which is still valid at `now`."""
        return bool(self.setup_digest) and self.setup_digest == digest and now < self.setup_until


class AccountRefusal(StrEnum):
    """Why a change of an account was refused; nothing was stored."""

    UNKNOWN = "unknown"
    NAME_USED = "name used"  # by an account that there is or was; for single sign-on also by one that looks like it
    NAME_INVALID = "name invalid"
    TOO_MANY = "too many"
    LAST_ADMIN = "last admin"  # nobody could administer accounts any more
    SUBJECT_USED = "subject used"  # the identity at the provider belongs to another account
    CHANGED = "changed"  # it is not as it was when the change was decided
    DISABLED = "disabled"  # what it would get is of no use before it is enabled


# Decides one account's change over all of them, in the transaction that stores it; it may run more than once.
AccountDecision = Callable[[Account, Sequence[Account]], Account | AccountRefusal]


def is_account_name(text: str) -> bool:
    """Whether a name may be given to an account: ASCII, and none that the audit has for the machine."""
    return _NAME.fullmatch(text) is not None and not is_reserved(text)


def look_of(name: str) -> str:
    """What is the same for names that people take for one another."""
    text = name.casefold().translate(_READ_AS)
    for pair, letter in _PAIRS:
        text = text.replace(pair, letter)
    return text


def administers(account: Account, roles: Roles) -> bool:
    """Whether the account can administer accounts."""
    return account.enabled and Scope.ADMIN in roles.scopes_of(account.role)


def with_role(role: str, roles: Roles) -> AccountDecision:
    """Gives the account another role."""
    return unless_last_admin(lambda account: replace(account, role=role), roles)


def with_enabled(roles: Roles, *, enabled: bool) -> AccountDecision:
    """Enables or disables the account."""
    return unless_last_admin(lambda account: replace(account, enabled=enabled), roles)


def with_password(
    phc: str, now: float, makers: tuple[MakingRecord, ...] = (), *, after: float | None = None
) -> AccountDecision:
    """Gives the account a password, which ends its one-time code; `makers`: of somebody else who set it.

    `after`: the `password_at` of the password that was shown for it; None if none had to be.
    """

    def change(account: Account, _all: Sequence[Account]) -> Account | AccountRefusal:
        if after not in (None, account.password_at):
            return AccountRefusal.CHANGED
        made = joined_makers(makers, account.makers, now)
        return replace(account, password=phc, password_at=now, makers=made, setup_digest="", setup_until=0.0)

    return change


def with_first_password(digest: str, phc: str, now: float) -> AccountDecision:
    """Gives the account a password for its one-time code (by digest), which is used up by it."""

    def change(account: Account, accounts: Sequence[Account]) -> Account | AccountRefusal:
        if not account.enabled or not account.has_setup_code(digest, now):
            return AccountRefusal.CHANGED
        # Who gave the code may be who used it: their day begins when the password is set.
        makers = tuple(replace(one, at=now) if now - one.at < KINSHIP else one for one in account.makers)
        return with_password(phc, now)(replace(account, makers=makers), accounts)

    return change


def with_rehash(before: str, phc: str) -> AccountDecision:
    """Replaces the hash of the same password, unless the password was changed meanwhile."""

    def change(account: Account, _all: Sequence[Account]) -> Account | AccountRefusal:
        return replace(account, password=phc) if account.password == before else AccountRefusal.CHANGED

    return change


def with_setup_code(digest: str, now: float, until: float, makers: tuple[MakingRecord, ...] = ()) -> AccountDecision:
    """Gives the account a one-time code until `until`, which replaces an earlier one."""

    def change(account: Account, _all: Sequence[Account]) -> Account | AccountRefusal:
        if not account.enabled:
            return AccountRefusal.DISABLED
        made = joined_makers(makers, account.makers, now)
        return replace(account, setup_digest=digest, setup_until=until, makers=made)

    return change


def without_credentials(
    digest: str, now: float, until: float, makers: tuple[MakingRecord, ...] = ()
) -> AccountDecision:
    """Takes the password away, and gives a one-time code (by digest) in place of it and of an earlier code.

    Without its factors, the password alone would be enough to register others: whoever has it would have the account.
    Accounts that are disabled, and those that only the provider signs in, get no code. `makers`: of whoever does it.
    """

    def change(account: Account, _all: Sequence[Account]) -> Account:
        is_given = account.enabled and (account.password != "" or account.subject == "")
        return replace(
            account,
            password="",
            password_at=now if account.password else account.password_at,
            makers=joined_makers(makers, account.makers, now),
            setup_digest=digest if is_given else "",
            setup_until=until if is_given else 0.0,
        )

    return change


def unless_last_admin(change: Callable[[Account], Account], roles: Roles) -> AccountDecision:
    """Makes the change, unless nobody could administer accounts after it."""

    def decide(account: Account, accounts: Sequence[Account]) -> Account | AccountRefusal:
        after = change(account)
        others = (one for one in accounts if one.account_id != account.account_id)
        is_last = administers(account, roles) and not administers(after, roles)
        if is_last and not any(administers(one, roles) for one in others):
            return AccountRefusal.LAST_ADMIN
        return after

    return decide
