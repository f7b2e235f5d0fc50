"""Creating and changing accounts: by administrators through the API, and on the machine beside a running controller."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.accounts.account import (
    MAX_ACCOUNTS,
    Account,
    AccountDecision,
    AccountRefusal,
    is_account_name,
    with_enabled,
    with_password,
    with_role,
    with_setup_code,
    without_credentials,
)
from controller.domain.accounts.roles import Roles
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.principal import MAX_GENERATIONS, MakingRecord, Principal
from controller.ports.accounts import AccountStore
from controller.ports.errors import ControllerError
from controller.service.unit_of_work import UnitOfWork

_CODE_BYTES: Final = 15  # random, of a one-time code: 20 characters
SETUP_CODE_LIFE: Final = 86_400.0  # seconds
CREDENTIAL_SET: Final = "the password of the account was set"
ROLE_LOST: Final = "the account lost scopes with its role"
ON_THE_MACHINE: Final = "operator:machine"  # the actor of `cordon account` and `cordon init`

# Adds what ends with a person (`Principal.key`): the text says why.
Ends = Callable[[str, str, float, UnitOfWork], None]


def new_code() -> str:
    """A one-time code, of which only the digest is stored."""
    return secrets.token_urlsafe(_CODE_BYTES)


class AccountError(ControllerError):
    """The account was not changed; `refusal` for programs."""

    def __init__(self, refusal: AccountRefusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


class UnknownRoleError(ControllerError):
    """There is no role with that name."""


class TooManyGenerationsError(ControllerError):
    """Too many accounts were made one by another within a day."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who changes accounts: a person in a session, or (`by` is None) whoever has the machine.

    A change of somebody else's account is an alert, unless `alerts` is false.
    """

    by: Principal | None = None
    alerts: bool = True

    @property
    def actor(self) -> str:
        """As audit lines name it."""
        return ON_THE_MACHINE if self.by is None else self.by.actor

    def makers(self, now: float, account: Account | None = None) -> tuple[MakingRecord, ...]:
        """The makers of an account that this one makes, or takes over by a password or factors of its own.

        Raises:
            TooManyGenerationsError: the line would be too long.
        """
        if self.by is None or (account is not None and account.key == self.by.key):
            return ()
        makers = self.by.makers_of_new(now)
        if len(makers) > MAX_GENERATIONS:
            text = f"{MAX_GENERATIONS} accounts were made one by another within a day: use an older account"
            raise TooManyGenerationsError(text)
        return makers


SETTING_UP: Final = Administrator(alerts=False)  # whoever makes the store


class AccountOperations:
    """Each method commits the change with its audit line, then calls `publish`; `ends` adds what ends with an account.

    `ends` gets the key of the account's `Principal`.
    """

    def __init__(
        self,
        accounts: AccountStore,
        roles: Roles,
        publish: Callable[[UnitOfWork], None],
        ends: Ends,
    ) -> None:
        self._accounts = accounts
        self.roles = roles
        self._publish = publish
        self._ends = ends

    async def create(self, account: Account, by: Administrator) -> Account:
        """Adds an account, whose makers are those of `by`.

        Raises:
            AccountError: the name cannot be given, or there are too many accounts.
            UnknownRoleError: there is no such role.
            TooManyGenerationsError: the line of makers would be too long.
        """
        self._check_role(account.role)
        if not is_account_name(account.name):
            raise AccountError(AccountRefusal.NAME_INVALID, _TEXTS[AccountRefusal.NAME_INVALID])
        now = account.created_at
        made = replace(account, makers=by.makers(now))
        batch = _line(AuditKind.ACCOUNT_CREATED, made, by, now, role=made.role)
        return self._done(await self._accounts.add_account(made, batch.to_writes()), batch, account.name)

    async def set_role(self, account: Account, role: str, by: Administrator, now: float) -> Account:
        """Gives an account another role.

        Raises:
            AccountError: it is the last that administers.
            UnknownRoleError: there is no such role.
        """
        self._check_role(role)
        batch = _line(AuditKind.ACCOUNT_ROLE_CHANGED, account, by, now, before=account.role, role=role)
        if self.roles.loses(account.role, role):
            self._ends(account.key, ROLE_LOST, now, batch)
        return await self._change(account, with_role(role, self.roles), batch, now)

    async def set_enabled(self, account: Account, by: Administrator, now: float, *, enabled: bool) -> Account:
        """Enables an account, or disables it with its tokens, sessions and open requests.

        Raises:
            AccountError: it is the last that administers.
        """
        kind = AuditKind.ACCOUNT_ENABLED if enabled else AuditKind.ACCOUNT_DISABLED
        batch = _line(kind, account, by, now)
        if not enabled:
            self._ends(account.key, "the account was disabled", now, batch)
        return await self._change(account, with_enabled(self.roles, enabled=enabled), batch, now)

    async def set_password(
        self, account: Account, phc: str, by: Administrator, now: float, *, after: float | None = None
    ) -> Account:
        """Sets a password by its hash, which ends every session of the account.

        Whoever sets the password of somebody else counts as the same person for a day. `after`: as in `with_password`.

        Raises:
            AccountError: the account is gone, or has got another password than that of `after`.
            TooManyGenerationsError: the line of makers would be too long.
        """
        batch = _line(AuditKind.ACCOUNT_PASSWORD_CHANGED, account, by, now)
        self._ends(account.key, CREDENTIAL_SET, now, batch)
        return await self._change(account, with_password(phc, now, by.makers(now, account), after=after), batch, now)

    async def give_setup_code(self, account: Account, digest: str, by: Administrator, now: float) -> Account:
        """Gives the account a one-time code by its digest, with which it sets password and factor for a day.

        Raises:
            AccountError: the account is gone, or disabled.
            TooManyGenerationsError: the line of makers would be too long.
        """
        until = now + SETUP_CODE_LIFE
        batch = _line(AuditKind.ACCOUNT_SETUP_CODE_CREATED, account, by, now, expires_at=until)
        return await self._change(account, with_setup_code(digest, now, until, by.makers(now, account)), batch, now)

    async def reset_factors(self, account: Account, digest: str, by: Administrator, now: float) -> Account:
        """Removes all second factors of an account and its password, and ends its sessions; returns it as it is then.

        The one-time code with this digest sets it up anew, if `without_credentials` gives it one. Whoever removes the
        factors of somebody else counts as the same person for a day.

        Raises:
            AccountError: the account is gone.
            TooManyGenerationsError: the line of makers would be too long.
        """
        batch = _line(AuditKind.ACCOUNT_FACTORS_RESET, account, by, now)
        self._ends(account.key, "the second factors of the account were removed", now, batch)
        decide = without_credentials(digest, now, now + SETUP_CODE_LIFE, by.makers(now, account))
        writes = batch.to_writes()
        found = await self._accounts.change_account(account.account_id, decide, now, writes, resets_factors=True)
        return self._done(found, batch, account.name)

    async def _change(self, account: Account, decide: AccountDecision, batch: UnitOfWork, now: float) -> Account:
        found = await self._accounts.change_account(account.account_id, decide, now, batch.to_writes())
        return self._done(found, batch, account.name)

    def _done(self, found: Account | AccountRefusal, batch: UnitOfWork, name: str) -> Account:
        if isinstance(found, AccountRefusal):
            raise AccountError(found, _TEXTS[found].format(name=name))
        self._publish(batch)
        return found

    def _check_role(self, role: str) -> None:
        if role not in self.roles.names:
            raise UnknownRoleError(f"there is no role {role}: there are {', '.join(self.roles.names)}")


_TEXTS: Final = {
    AccountRefusal.UNKNOWN: "there is no account {name}",
    AccountRefusal.NAME_USED: "the name {name} belongs to an account that there is or was: choose another",
    AccountRefusal.NAME_INVALID: (
        "a login name has letters, digits and . _ - @, at most 64, with a letter or digit at both ends, and is not"
        " machine or init"
    ),
    AccountRefusal.TOO_MANY: f"there are {MAX_ACCOUNTS} accounts already",
    AccountRefusal.LAST_ADMIN: "{name} is the last account that administers accounts: create another first",
    AccountRefusal.SUBJECT_USED: "this identity at the provider belongs to another account",
    AccountRefusal.CHANGED: "{name} was changed meanwhile: try again",
    AccountRefusal.DISABLED: "{name} is disabled: enable it first",
}


def _line(kind: AuditKind, account: Account, by: Administrator, now: float, **more: object) -> UnitOfWork:
    detail: dict[str, object] = {"account": account.account_id, "name": account.name, **more}
    alert = by.alerts and (by.by is None or by.by.key != account.key)
    return UnitOfWork(audit=[(now, AuditEntry(kind, "", by.actor, "", detail, alert=alert))])
