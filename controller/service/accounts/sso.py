"""Single sign-on: attempts, the account and role of who comes back, and from when on it is enforced."""

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from controller.domain.accounts.account import Account, AccountRefusal
from controller.domain.accounts.caller import STEP_UP, SignedIn
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.secret_text import digest_of
from controller.domain.accounts.session import MAX_AGENT, Session
from controller.domain.accounts.sso import (
    ATTEMPT_SECONDS,
    NO_ROLE,
    ProvedIdentity,
    SignInAttempt,
    SsoRules,
    attempt_of,
    factor_at,
    login_names,
    new_attempt,
    role_of,
    with_sign_in,
)
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.accounts import AccountStore, SsoTrials
from controller.ports.clock import IdGenerator
from controller.ports.errors import ControllerError
from controller.ports.identity_provider import (
    IdentityProvider,
    IdentityProviderError,
    ProviderUnavailableError,
)
from controller.ports.log import Log
from controller.service.accounts.factors import SESSION_BYTES, NewSession
from controller.service.accounts.line_limit import LineLimit
from controller.service.accounts.operations import ROLE_LOST, Ends
from controller.service.accounts.sign_in import PasswordRule
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_TAKEN: Final = 10_000  # answers within `ATTEMPT_SECONDS`; each takes a valid cookie that was given out for it
FACTOR: Final = "sso"  # the kind of a factor that the provider vouches for
T = TypeVar("T")


class SignInRefusedError(ControllerError):
    """Nobody is signed in. `code` is for programs; the text is for whoever sits in front of the browser."""

    def __init__(self, code: str, text: str, *, alert: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.alert = alert


class SingleSignOn:
    """Everything about one provider. The key of attempts is new with each start: who was on the way begins again."""

    def __init__(
        self,
        name: str,
        provider: IdentityProvider,
        rules: SsoRules,
        accounts: AccountStore,
        trials: SsoTrials,
        roles: Roles,
        fleet: FleetState,
        ids: IdGenerator,
        log: Log,
        ends: Ends,
    ) -> None:
        """`name`: of the provider, for people."""
        self.name = name
        self.rules = rules
        self.last_problem = ""  # why the provider could not be used; "" again after a sign-in
        self._provider = provider
        self._accounts = accounts
        self._trials = trials
        self._roles = roles
        self._fleet = fleet
        self._ids = ids
        self._log = log
        self._ends = ends
        self._key = secrets.token_bytes(32)
        self._taken: OrderedDict[str, float] = OrderedDict()
        self._lines = LineLimit()

    async def begin(self, return_to: str, session: Session | None = None) -> tuple[str, str]:
        """Returns where to send the browser, and the cookie that it keeps; `session`: gives its factor again.

        Raises:
            IdentityProviderError: the provider cannot be used.
        """
        now, token = self._fleet.clock.now(), secrets.token_urlsafe(16)
        attempt = new_attempt(self._key, token, now, return_to, "" if session is None else session.session_id)
        return await self._noted(self._provider.authorization_url(attempt)), attempt.cookie

    async def finish(
        self, answer: Mapping[str, str], cookie: str, browser: tuple[str, str], person: SignedIn | None
    ) -> tuple[NewSession, str]:
        """Returns the session of whom the provider signed in, and where they wanted to go.

        Args:
            answer: what the provider sent back through the browser.
            cookie: what the browser kept.
            browser: its address and name.
            person: whose session the browser has already.

        Raises:
            SignInRefusedError: it is no answer to an attempt of this browser, or the person may not come in.
            IdentityProviderError: the provider cannot be used, or proved nobody.
        """
        attempt = self._taken_attempt(answer.get("state", ""), cookie)
        who = await self._noted(self._provider.identity(answer, attempt))
        self.last_problem = ""
        account = await self._account_of(who)
        if attempt.session:
            return await self._stepped_up(who, account, attempt, person), attempt.return_to
        return await self._signed_in(who, account, browser), attempt.return_to

    async def password_rule(self) -> PasswordRule:
        """Which accounts may log in by password now."""
        is_enforced = await self.why_not_enforced() == ""
        return lambda account: not is_enforced or self.rules.takes_password_of(account)

    def vouches_for(self, account: Account) -> bool:
        """Whether this person can give a second factor at the provider."""
        return account.issuer == self.rules.issuer and bool(self.rules.acr_values or self.rules.amr_values)

    async def warnings(self) -> tuple[str, ...]:
        """What is not as configured: the provider cannot be used, or passwords are taken although none should be."""
        away = f"the provider of single sign-on cannot be used: {self.last_problem}" if self.last_problem else ""
        why = await self.why_not_enforced() if self.rules.enforced else ""
        return tuple(filter(None, (away, f"single sign-on is not enforced: {why}" if why else "")))

    async def why_not_enforced(self) -> str:
        """Why passwords are taken beside single sign-on; "" where it is enforced.

        Enforced, it locks nobody out: somebody has come in by it, and there is an account for the day it fails.
        """
        if not self.rules.enforced:
            return "accounts.sso.enforced is not set"
        if await self._trials.tried_configuration() != self.rules.configuration:
            return "nobody has signed in with this configuration of accounts.sso yet"
        if not any(
            one.enabled and one.password and self.rules.takes_password_of(one)
            for one in await self._accounts.accounts()
        ):
            return "no account of accounts.sso.break_glass is enabled and has a password"
        return ""

    def _taken_attempt(self, state: str, cookie: str) -> SignInAttempt:
        now = self._fleet.clock.now()
        attempt = attempt_of(cookie, state, self._key) if cookie else None
        if attempt is None:
            text = "this answer belongs to no sign-in that this browser began: begin again"
            raise SignInRefusedError("sign_in_unknown", text)
        if attempt.is_over(now) or state in self._taken:
            raise SignInRefusedError("sign_in_over", "this sign-in was finished, or took too long: begin again")
        while self._taken and next(iter(self._taken.values())) <= now - ATTEMPT_SECONDS:
            self._taken.popitem(last=False)
        if len(self._taken) >= MAX_TAKEN:
            raise SignInRefusedError("too_many_sign_ins", "too many people sign in: try again in some minutes")
        self._taken[state] = now
        return attempt

    async def _account_of(self, who: ProvedIdentity) -> Account:
        """The account of a person, made or changed as their groups say.

        Raises:
            SignInRefusedError: they have none, or it is disabled, or it is the last that administers and loses that.
        """
        account, role = await self._accounts.account_of_subject(who.issuer, who.subject), role_of(who, self.rules)
        if account is not None and not account.enabled:
            raise SignInRefusedError("account_disabled", "your account is disabled")
        if role == NO_ROLE and (account is None or who.groups is None):
            raise SignInRefusedError("no_group", "no group that the provider sent for you has a role here")
        if account is None:
            return await self._created(who, role)
        changed = await self._changed(account, role)
        if role == NO_ROLE:
            await self._accounts.end_sessions(account.account_id, UnitOfWork().to_writes())
            raise SignInRefusedError("no_group", "you are in no group any more that has a role here")
        return changed

    async def _created(self, who: ProvedIdentity, role: str) -> Account:
        now, (wished, other) = self._fleet.clock.now(), login_names(who)
        for name in (wished, other) if self.rules.gives_name(wished) else (other,):
            account = Account(
                self._ids.new(now), name, role, now, issuer=who.issuer, subject=who.subject, last_login_at=now
            )
            more = {"role": role, "issuer": who.issuer, "subject": who.subject}
            # Whoever has the name may be the same human, who would be two persons then: somebody has to look.
            batch = self._batch(AuditKind.ACCOUNT_CREATED, account, alert=name != wished, **more)
            found = await self._accounts.add_account(account, batch.to_writes())
            if isinstance(found, Account):
                self._fleet.publish_committed(batch)
                return found
            if found is AccountRefusal.SUBJECT_USED:
                break  # the same person came twice at one moment
            if found is AccountRefusal.TOO_MANY:
                raise SignInRefusedError("too_many_accounts", "there are as many accounts as there may be")
        raise SignInRefusedError("sign_in_raced", "your account was being made at this moment: begin again")

    async def _changed(self, account: Account, role: str) -> Account:
        now = self._fleet.clock.now()
        batch = UnitOfWork()
        if role != account.role:
            batch = self._batch(AuditKind.ACCOUNT_ROLE_CHANGED, account, before=account.role, role=role)
        if self._roles.loses(account.role, role):
            self._ends(account.key, ROLE_LOST, now, batch)
        decide = with_sign_in(role, self._roles, now)
        found = await self._accounts.change_account(account.account_id, decide, now, batch.to_writes())
        if isinstance(found, Account):
            self._fleet.publish_committed(batch)
            return found
        if found is AccountRefusal.LAST_ADMIN:
            text = "your groups give you another role, and yours is the last account that administers accounts"
            raise SignInRefusedError("last_admin", text, alert=True)
        raise SignInRefusedError("account_changed", "your account was changed meanwhile: begin again")

    async def _signed_in(self, who: ProvedIdentity, account: Account, browser: tuple[str, str]) -> NewSession:
        now, secret = self._fleet.clock.now(), secrets.token_urlsafe(SESSION_BYTES)
        at, (peer, agent) = factor_at(who, self.rules, now), browser
        session = Session(
            digest_of(secret), account.account_id, now, now, at, FACTOR if at else "", peer, agent[:MAX_AGENT]
        )
        batch = self._own_line(AuditKind.SSO_SIGNED_IN, account, role=account.role, peer=peer, second_factor=at > 0)
        is_new = await self._trials.tried_configuration() != self.rules.configuration
        if is_new:
            batch.audit += self._batch(AuditKind.SSO_TRIED, account, issuer=who.issuer).audit
        return await self._stored(session, secret, batch, tries=is_new)

    async def _stepped_up(
        self, who: ProvedIdentity, account: Account, attempt: SignInAttempt, person: SignedIn | None
    ) -> NewSession:
        if person is None or person.session.session_id != attempt.session:
            raise SignInRefusedError("session_over", "the session that asked for this has ended: sign in again")
        if person.account.account_id != account.account_id:
            raise SignInRefusedError("other_person", "the provider signed in somebody else", alert=True)
        now, at = self._fleet.clock.now(), factor_at(who, self.rules, self._fleet.clock.now())
        if not 0 <= now - at < STEP_UP:
            text = "the provider did not say that you gave a second factor just now"
            raise SignInRefusedError("factor_not_proved", text)
        secret = secrets.token_urlsafe(SESSION_BYTES)
        session = replace(person.session, digest=digest_of(secret), last_used_at=now, factor_at=at, factor=FACTOR)
        batch = self._own_line(AuditKind.FACTOR_GIVEN, account, factor=FACTOR)
        return await self._stored(session, secret, batch, replaces=person.session.digest)

    async def _stored(
        self, session: Session, secret: str, batch: UnitOfWork, *, replaces: str = "", tries: bool = False
    ) -> NewSession:
        if not await self._accounts.add_session(session, batch.to_writes(), replaces=replaces):
            raise SignInRefusedError("session_over", "your account or session has ended meanwhile")
        if tries:
            await self._trials.note_tried(self.rules.configuration)
        self._fleet.publish_committed(batch)
        return NewSession(session, secret)

    async def _noted(self, call: Awaitable[T]) -> T:
        """Keeps why the provider cannot be used, for operators."""
        try:
            return await call
        except IdentityProviderError as e:
            if isinstance(e, ProviderUnavailableError):
                self.last_problem = str(e)
            self._log("sign-in through the provider failed", {"error": str(e)})
            raise

    def _own_line(self, kind: AuditKind, who: Account, **more: object) -> UnitOfWork:
        """The line of what somebody does at will, within the limit of such lines."""
        counted = self._lines.admit(f"{kind} {who.key}", self._fleet.clock.monotonic())
        return UnitOfWork() if counted is None else self._line(kind, who, {**more, **counted})

    def _batch(self, kind: AuditKind, who: Account, *, alert: bool = False, **more: object) -> UnitOfWork:
        return self._line(kind, who, more, alert=alert)

    def _line(self, kind: AuditKind, who: Account, more: dict[str, object], *, alert: bool = False) -> UnitOfWork:
        detail: dict[str, object] = {"account": who.account_id, "name": who.name, **more}
        entry = AuditEntry(kind, "", who.in_session.actor, "", detail, alert=alert)
        return UnitOfWork(audit=[(self._fleet.clock.now(), entry)])
