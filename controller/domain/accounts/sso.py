"""Single sign-on: what a sign-in consists of, which role a person has, what counts as a second factor. Pure."""

import base64
import hashlib
import hmac
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.accounts.account import (
    Account,
    AccountDecision,
    is_account_name,
    look_of,
    unless_last_admin,
)
from controller.domain.accounts.roles import Roles

ATTEMPT_SECONDS: Final = 600.0  # from the first page of the provider to its answer
MAX_COOKIE: Final = 2048  # characters of an attempt as a browser keeps it
MAX_GROUPS: Final = 2000  # of one person
NO_ROLE: Final = ""  # of somebody who is in no group that has one: no scopes
_NAME_LENGTH: Final = 48  # characters of a login name, before what tells it from another one
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._@-]+")


@dataclass(frozen=True, slots=True)
class GroupRole:
    """Who is in `group`, as the provider names it, has `role`."""

    group: str
    role: str


@dataclass(frozen=True, slots=True)
class SsoRules:
    """What the configuration says of people who come from the provider.

    `groups`: the first entry whose group a person is in gives the role. `acr_values` and `amr_values`: those that stand
    for a second factor. `enforced`: passwords are for the accounts named in `break_glass` only. `configuration`: a
    digest of what decides whether somebody can sign in, so that a trial of another configuration does not count.
    """

    groups: tuple[GroupRole, ...]
    acr_values: tuple[str, ...] = ()
    amr_values: tuple[str, ...] = ()
    issuer: str = ""
    enforced: bool = False
    break_glass: tuple[str, ...] = ()
    configuration: str = ""

    def takes_password_of(self, account: Account) -> bool:
        """Whether an account may log in by password while single sign-on is enforced; never one of the provider."""
        return not account.subject and account.name.casefold() in {name.casefold() for name in self.break_glass}

    def gives_name(self, name: str) -> bool:
        """Whether a person of the provider may get this login name: one of `break_glass` is kept, also unused."""
        return is_account_name(name) and look_of(name) not in map(look_of, self.break_glass)


@dataclass(frozen=True, slots=True)
class ProvedIdentity:
    """Whom the provider signed in. Only `issuer` and `subject` together identify a person.

    `groups` is None where the provider sent none; `name` is a wish for a login name, maybe empty. `acr` and `amr`: how
    the person proved themselves, `auth_time` when (Unix seconds, 0 unknown).
    """

    issuer: str
    subject: str
    name: str = ""
    groups: tuple[str, ...] | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: float = 0.0


def role_of(who: ProvedIdentity, rules: SsoRules) -> str:
    """The role that the groups of a person give, or `NO_ROLE`."""
    held = frozenset(who.groups or ())
    return next((entry.role for entry in rules.groups if entry.group in held), NO_ROLE)


def factor_at(who: ProvedIdentity, rules: SsoRules, now: float) -> float:
    """When the person gave a second factor at the provider, Unix seconds; 0 if that is not proved.

    It counts only with a configured value, and with the time: a sign-in may rest on an authentication of last week.
    """
    is_proved = (who.acr != "" and who.acr in rules.acr_values) or not set(who.amr).isdisjoint(rules.amr_values)
    return max(0.0, min(who.auth_time, now)) if is_proved else 0.0


def login_names(who: ProvedIdentity) -> tuple[str, str]:
    """Login names for a new account: as the provider calls the person, and one that nobody else has.

    The name decides nothing: another account that has it is another person.
    """
    plain = _NOT_IN_NAMES.sub("-", unicodedata.normalize("NFKC", who.name))[:_NAME_LENGTH].strip("._@-") or "person"
    digest = hashlib.sha256(json.dumps([who.issuer, who.subject]).encode()).hexdigest()
    return plain, f"{plain}-{digest[:12]}"


def with_sign_in(role: str, roles: Roles, now: float) -> AccountDecision:
    """Notes a sign-in through the provider, and gives the account the role of its groups now."""
    return unless_last_admin(lambda account: replace(account, role=role, last_login_at=now), roles)


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """One way through the provider.

    `cookie` is what the browser keeps. `state`, `nonce` and `verifier` (PKCE) follow from it and the controller's key,
    so that the controller stores nothing for people who may never come back, and no flood of them displaces anybody.
    `session`: which session gives its second factor again, "" for a sign-in.
    """

    cookie: str
    state: str
    nonce: str
    verifier: str
    began_at: float
    return_to: str
    session: str = ""

    @property
    def challenge(self) -> str:
        """The PKCE challenge (S256)."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    def is_over(self, now: float) -> bool:
        return not self.began_at <= now < self.began_at + ATTEMPT_SECONDS


def new_attempt(key: bytes, token: str, now: float, return_to: str, session: str = "") -> SignInAttempt:
    """Begins an attempt; `token` is random, `key` is known to the controller only."""
    return _derived(_base64(json.dumps([token, int(now), return_to, session]).encode()), key)


def attempt_of(cookie: str, state: str, key: bytes) -> SignInAttempt | None:
    """The attempt of this cookie and this `state`; None if they were not given out together."""
    expected = _secret(key, "state", cookie)
    if len(cookie) > MAX_COOKIE or not hmac.compare_digest(expected.encode(), state.encode("utf-8", "replace")):
        return None
    return _derived(cookie, key)


def _derived(cookie: str, key: bytes) -> SignInAttempt:
    _, began_at, return_to, session = json.loads(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
    state, nonce, verifier = (_secret(key, use, cookie) for use in ("state", "nonce", "verifier"))
    return SignInAttempt(cookie, state, nonce, verifier, began_at, return_to, session)


def _secret(key: bytes, use: str, cookie: str) -> str:
    return _base64(hmac.digest(key, f"{use}:{cookie}".encode("utf-8", "replace"), "sha256"))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
