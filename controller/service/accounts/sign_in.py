"""Signing in with a password or a one-time code; the beginning and the end of sessions."""

import asyncio
import contextlib
import hmac
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Final

from controller.domain.accounts.account import Account, AccountRefusal, with_first_password, with_rehash
from controller.domain.accounts.login_delay import LoginDelays
from controller.domain.accounts.passwords import MAX_PASSWORD, check_password
from controller.domain.accounts.secret_text import digest_of
from controller.domain.accounts.session import MAX_AGENT, Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.client_address import counted_as
from controller.domain.effects import AuditEntry
from controller.domain.principal import Principal
from controller.ports.accounts import AccountStore, PasswordHasher, TooManyLoginsError
from controller.ports.clock import Clock
from controller.ports.errors import ControllerError
from controller.ports.store import StoreWrites
from controller.service.accounts.line_limit import LineLimit
from controller.service.accounts.operations import CREDENTIAL_SET, Ends
from controller.service.unit_of_work import UnitOfWork

MAX_OF_ADDRESS: Final = 5  # sign-ins of one address that wait or are checked, and of an account known there
_SECRET_BYTES: Final = 32  # random
_BROWSER: Final = "browser of "  # begins what stands for an address, where the browser is known
_NOTHING: Final = StoreWrites()


class PasswordRefusedError(ControllerError):
    """Wrong name or password, or a disabled account: it does not tell which; `failures` of this account lately."""

    def __init__(self, failures: int) -> None:
        super().__init__("name or password is wrong")
        self.failures = failures


class SetupRefusedError(ControllerError):
    """The one-time code is unknown, used or over."""


PasswordRule = Callable[[Account], bool]  # whether an account may log in by password


async def everybody() -> PasswordRule:
    """The rule without single sign-on."""
    return lambda _account: True


class SignIn:
    """Checks passwords and keeps sessions; `publish` gets each committed batch, `sleep` waits seconds.

    `rule` says who may log in by password now; it is asked once for each password, whoever it is for.
    Sign-ins that fail slow later ones down; the others are those of everybody, and nothing else waits for them.
    """

    def __init__(
        self,
        accounts: AccountStore,
        hasher: PasswordHasher,
        common: Collection[str],
        clock: Clock,
        publish: Callable[[UnitOfWork], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rule: Callable[[], Awaitable[PasswordRule]] = everybody,
        ends: Ends = lambda _key, _why, _now, _batch: None,
    ) -> None:
        self._accounts = accounts
        self._hasher = hasher
        self._common = common
        self._clock = clock
        self._publish = publish
        self._sleep = sleep
        self._rule = rule
        self._ends = ends
        self._key = secrets.token_bytes(_SECRET_BYTES)
        self._delays = LoginDelays(self._key)
        self._at_once: Counter[tuple[str, str]] = Counter()
        self._lines = LineLimit()

    def browser_mark(self, name: str) -> str:
        """What a browser keeps in which the account of this name signed in, since the controller's start."""
        text = f"{_BROWSER}{name.casefold()}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256").hex()

    async def check(self, name: str, password: str, peer: str, mark: str = "") -> Account:
        """Returns the account with this name and password; one hash is made, whatever is wrong.

        `mark`: what the browser kept of an earlier sign-in, see `browser_mark`.

        Raises:
            PasswordRefusedError: there is none, it is disabled, or it may not log in by password.
            TooManyLoginsError: too many sign-ins are under way, of this address or of all; nothing was hashed.
        """
        address = counted_as(peer)
        # Whoever shares an address with somebody who guesses has places of their own, once they signed in from there;
        # in a browser that they used, nobody else has these places, even who writes their name.
        is_marked = hmac.compare_digest(mark.encode("utf-8", "replace"), self.browser_mark(name).encode())
        where = f"{_BROWSER}{name.casefold()}" if is_marked else address
        is_known = is_marked or self._delays.is_known(address, name)
        with self._place(where, name.casefold() if is_known else ""):
            if wait := self._delays.seconds(where, name, self._clock.monotonic(), is_known=is_known):
                await self._sleep(wait)
            account, may_log_in = await self._accounts.account_named(name), await self._rule()
            phc = account.password if account is not None and account.enabled and may_log_in(account) else ""
            is_right = await self._hasher.matches(password[: MAX_PASSWORD + 1], phc)
            if account is None or not is_right:
                now = self._clock.monotonic()
                self._delays.failed(where, name, now)
                raise PasswordRefusedError(self._delays.failures(name, now))
            self._delays.succeeded(address, name)
        return await self._rehashed(account, password)

    async def new_hash(self, password: str, name: str) -> str:
        """Returns the hash of a new password of this account.

        Raises:
            WeakPasswordError: it cannot be one.
            TooManyLoginsError: too many are hashed at this moment.
        """
        check_password(password, name, self._common)
        return await self._hasher.hashed(password)

    async def set_up(self, code: str, password: str) -> Account:
        """Sets the first password of the account with this one-time code, which is used up by it.

        Raises:
            SetupRefusedError: there is none such.
            WeakPasswordError: it cannot be a password.
            TooManyLoginsError: too many are hashed at this moment.
        """
        account = await self.with_code(code)
        phc, now = await self.new_hash(password, account.name), self._clock.now()
        detail: dict[str, object] = {"account": account.account_id, "name": account.name, "by": "one-time code"}
        entry = AuditEntry(AuditKind.ACCOUNT_PASSWORD_CHANGED, "", account.in_session.actor, "", detail)
        batch = UnitOfWork(audit=[(now, entry)])
        self._ends(account.key, CREDENTIAL_SET, now, batch)
        decide = with_first_password(digest_of(code), phc, now)
        found = await self._accounts.change_account(account.account_id, decide, now, batch.to_writes())
        if isinstance(found, AccountRefusal):
            raise SetupRefusedError(_NO_CODE)
        self._publish(batch)
        return found

    async def with_code(self, code: str) -> Account:
        """Returns the account that this one-time code sets up.

        Raises:
            SetupRefusedError: there is none such, or it is disabled.
        """
        digest = digest_of(code)
        found = await self._accounts.account_with_code(digest)
        if found is None or not found.enabled or not found.has_setup_code(digest, self._clock.now()):
            raise SetupRefusedError(_NO_CODE)
        return found

    async def start(
        self, account: Account, peer: str, agent: str, *, factor: str = "", factor_at: float = 0.0
    ) -> tuple[str, Session]:
        """Starts a session of somebody who has shown who they are; returns its secret, which is not stored.

        `factor`: the kind of a second factor that was shown too, `factor_at`: when (Unix seconds).

        Raises:
            PasswordRefusedError: the account was disabled meanwhile, or got another password.
        """
        secret, now = secrets.token_urlsafe(_SECRET_BYTES), self._clock.now()
        session = Session(digest_of(secret), account.account_id, now, now, factor_at, factor, peer, agent[:MAX_AGENT])
        detail: dict[str, object] = {"session": session.session_id, "peer": peer, "factor": factor}
        batch = self._own_line(AuditKind.SESSION_STARTED, account, now, detail)
        if not await self._accounts.add_session(session, batch.to_writes(), password_at=account.password_at):
            raise PasswordRefusedError(0)
        self._publish(batch)
        return secret, session

    async def end(self, account: Account, by: Principal, *, session_id: str = "", but: str = "") -> int:
        """Ends one session of an account, or all but the one with the id `but`; returns how many there were.

        Where all end, open requests and scopes for a while end too: somebody else may have asked for them.
        """
        now = self._clock.now()
        detail: dict[str, object] = {"account": account.account_id, "name": account.name, "session": session_id}
        if session_id and by.key == account.key:
            batch = self._own_line(AuditKind.SESSION_ENDED, account, now, detail)
        else:
            batch = _line(AuditKind.SESSION_ENDED, by, now, detail)
        if not session_id:
            self._ends(account.key, "the sessions of the account were ended", now, batch)
        ended = await self._accounts.end_sessions(account.account_id, batch.to_writes(), session_id=session_id, but=but)
        if ended:
            self._publish(batch)
        return ended

    def _own_line(self, kind: AuditKind, account: Account, now: float, detail: dict[str, object]) -> UnitOfWork:
        """The line of what somebody does at will, within the limit of such lines."""
        more = self._lines.admit(f"{kind} {account.key}", self._clock.monotonic())
        return UnitOfWork() if more is None else _line(kind, account.in_session, now, {**detail, **more})

    @contextlib.contextmanager
    def _place(self, address: str, known: str) -> Iterator[None]:
        """Keeps one address from taking all places of the queue."""
        key = address, known
        if self._at_once[key] >= MAX_OF_ADDRESS:
            raise TooManyLoginsError(f"{MAX_OF_ADDRESS} sign-ins of this address are under way: try again")
        self._at_once[key] += 1
        try:
            yield
        finally:
            self._at_once[key] -= 1
            if not self._at_once[key]:
                del self._at_once[key]

    async def _rehashed(self, account: Account, password: str) -> Account:
        if not self._hasher.is_outdated(account.password):
            return account
        try:
            phc = await self._hasher.hashed(password)
        except TooManyLoginsError:
            return account  # next time
        decide = with_rehash(account.password, phc)
        found = await self._accounts.change_account(account.account_id, decide, self._clock.now(), _NOTHING)
        return account if isinstance(found, AccountRefusal) else found


_NO_CODE: Final = "this one-time code is not known here, was used, or is over: have another made"


def _line(kind: AuditKind, by: Principal, now: float, detail: dict[str, object]) -> UnitOfWork:
    return UnitOfWork(audit=[(now, AuditEntry(kind, "", by.actor, "", detail))])
