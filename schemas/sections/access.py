"""Sections about who gets in: accounts and passwords, and the SSH server."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Name, Text, Wire
from schemas.sections.system import Gaps, Many

MAX_ACCOUNTS: Final = 64  # names in each list; what is cut is counted in `truncated`
MAX_SOURCES: Final = 32
MAX_ALGORITHMS: Final = 32
MAX_OVERRIDES: Final = 32
MAX_PORTS: Final = 16

# The lists of accounts in `AccessSection`.
ACCOUNT_LISTS: Final = ("empty_passwords", "root_equals", "weak_hashes", "never_expiring", "sudo_without_password")

Names = Annotated[tuple[Name, ...], Field(max_length=MAX_ACCOUNTS)]
Days = Annotated[int, Field(ge=-1, le=1_000_000)]


class FailedLogins(Wire):
    """A source that failed to log in; `at_least` is 10, 100, 1000, ... of the last whole day."""

    source: Text
    at_least: Many


class AccessSection(Wire):
    """Accounts, password rules and limits on guessing; names of accounts and of algorithms, never a hash.

    None where the device could not find out, with the reason in `gaps`. `minimum_length` and `minimum_classes` are what
    PAM enforces. `lockout` is the guard: `faillock`, `tally2`, `fail2ban`, `none`; `lockout_after` failures.
    """

    state: Literal["ok"] = "ok"
    accounts: Many = 0
    password_accounts: Many | None = None
    empty_passwords: Names | None = None
    root_equals: Names = ()
    hash_algorithms: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS)] | None = None
    weak_hashes: Names | None = None
    never_expiring: Names | None = None
    new_hash: Text = ""
    max_days: Days | None = None
    min_days: Days | None = None
    warn_days: Days | None = None
    quality_enforced: bool | None = None
    minimum_length: Many | None = None
    minimum_classes: Many | None = None
    accepts_empty: bool | None = None
    sudo_without_password: Names | None = None
    lockout: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS)] | None = None
    lockout_after: Many | None = None
    lockout_seconds: Many | None = None
    failed_logins: Annotated[tuple[FailedLogins, ...], Field(max_length=MAX_SOURCES)] | None = None
    gaps: Gaps = ()
    truncated: Counter = 0


class SshSection(Wire):
    """What the SSH server lets in.

    `resolved` is true when the server itself told its settings; else they were read from its files, with the defaults
    of current versions for what no file says. `overrides` are settings inside Match blocks, which hold for some
    connections only: `Match user bob: passwordauthentication yes`.
    """

    state: Literal["ok"] = "ok"
    server: Literal["openssh", "dropbear"]
    resolved: bool
    ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(max_length=MAX_PORTS)] = ()
    password_login: bool | None = None
    interactive_login: bool | None = None
    root_login: Literal["yes", "no", "prohibit-password", "forced-commands-only", "unknown"] = "unknown"
    empty_passwords: bool | None = None
    max_auth_tries: Many | None = None
    login_grace_seconds: Many | None = None
    x11_forwarding: bool | None = None
    weak_algorithms: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS)] | None = None
    overrides: Annotated[tuple[Text, ...], Field(max_length=MAX_OVERRIDES)] = ()
    gaps: Gaps = ()
    truncated: Counter = 0
