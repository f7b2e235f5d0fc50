"""Sections about logins: accounts and passwords (`access`), and the SSH server (`ssh`)."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import CollectedSection, Counter, Name, Text, WireModel
from schemas.sections.system import SystemCount

MAX_ACCOUNTS: Final = 64  # names in each list; `truncated` counts the omitted ones
MAX_SOURCES: Final = 32
MAX_ALGORITHMS: Final = 32
MAX_OVERRIDES: Final = 32
MAX_PORTS: Final = 16

# The lists of accounts in `AccessSection`.
ACCOUNT_LISTS: Final = ("empty_passwords", "root_equals", "weak_hashes", "never_expiring", "sudo_without_password")

AccountNames = Annotated[tuple[Name, ...], Field(max_length=MAX_ACCOUNTS, fail_fast=True)]
PasswordAgeDays = Annotated[int, Field(ge=-1, le=1_000_000)]


class FailedLogins(WireModel):
    """A source of failed logins; `at_least` is the number in the last 24 hours, rounded down to 10, 100, 1000, ..."""

    source: Text
    at_least: SystemCount


class AccessSection(CollectedSection):
    """Accounts, password rules and lockout; contains names of accounts and algorithms, never a hash.

    None for facts that could not be collected, with the reason in `gaps`. `minimum_length` and `minimum_classes` are
    those of PAM. `lockout` lists the mechanisms: `faillock`, `tally2`, `tally`, `fail2ban`; `lockout_after` failures.
    """

    accounts: SystemCount = 0
    password_accounts: SystemCount | None = None
    empty_passwords: AccountNames | None = None
    root_equals: AccountNames = ()
    hash_algorithms: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS, fail_fast=True)] | None = None
    weak_hashes: AccountNames | None = None
    never_expiring: AccountNames | None = None
    new_hash: Text = ""
    max_days: PasswordAgeDays | None = None
    min_days: PasswordAgeDays | None = None
    warn_days: PasswordAgeDays | None = None
    quality_enforced: bool | None = None
    minimum_length: SystemCount | None = None
    minimum_classes: SystemCount | None = None
    accepts_empty: bool | None = None
    sudo_without_password: AccountNames | None = None
    lockout: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS, fail_fast=True)] | None = None
    lockout_after: SystemCount | None = None
    lockout_seconds: SystemCount | None = None
    failed_logins: Annotated[tuple[FailedLogins, ...], Field(max_length=MAX_SOURCES, fail_fast=True)] | None = None
    truncated: Counter = 0


class SshSection(CollectedSection):
    """Settings of the SSH server.

    `resolved` is true when the server itself printed its settings; else they are from its files, with the defaults of
    current versions. `overrides` are settings inside of Match blocks, which apply to some connections only:
    `Match user bob: passwordauthentication yes`.
    """

    server: Literal["openssh", "dropbear"]
    resolved: bool
    ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(max_length=MAX_PORTS, fail_fast=True)
    ] = ()
    password_login: bool | None = None
    interactive_login: bool | None = None
    root_login: Literal["yes", "no", "prohibit-password", "forced-commands-only", "unknown"] = "unknown"
    empty_passwords: bool | None = None
    max_auth_tries: SystemCount | None = None
    login_grace_seconds: SystemCount | None = None
    x11_forwarding: bool | None = None
    weak_algorithms: Annotated[tuple[Name, ...], Field(max_length=MAX_ALGORITHMS, fail_fast=True)] | None = None
    overrides: Annotated[tuple[Text, ...], Field(max_length=MAX_OVERRIDES, fail_fast=True)] = ()
    truncated: Counter = 0
