"""Which caller a token or a session is, and what they may do now."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from controller.domain.accounts.account import Account
from controller.domain.accounts.caller import Caller, Credential, SignedIn
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.grants import scopes_lent
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.secret_text import digest_of
from controller.domain.accounts.session import Session, wants_touch
from controller.domain.scopes import Scope
from controller.ports.accounts import AccountStore
from controller.ports.clock import Clock
from controller.ports.errors import StoreError
from controller.ports.store import ApiToken, Store
from controller.service.accounts.factor_requirement import FactorRequirement
from controller.service.accounts.grants import GrantsInForce

MAX_REMEMBERED: Final = 1024  # credentials whose last use is known here; the one used longest ago is dropped first
_WAIT: Final = 1.0  # seconds that a request waits for its last use to be stored, which is written in any case


class Authentication:
    """Looks every caller up in the store: what was ended there is refused with the next request."""

    def __init__(
        self,
        store: Store,
        accounts: AccountStore,
        roles: Roles,
        clock: Clock,
        grants: GrantsInForce,
        factors: FactorRequirement,
    ) -> None:
        self.accounts = accounts
        self.roles = roles
        self.grants = grants
        self._store = store
        self._clock = clock
        self._factors = factors
        self._touched: OrderedDict[str, float] = OrderedDict()

    async def scopes_of(self, account: Account) -> frozenset[Scope]:
        """What the account may do now, by role and for a while; nothing when it is disabled."""
        if not account.enabled:
            return frozenset()
        return self.roles.scopes_of(account.role) | scopes_lent(self.grants.of(account.key, self._clock.now()))

    async def standing(self) -> frozenset[str]:
        """The tokens and accounts that have not ended, as `Principal.standing` names them."""
        now = self._clock.now()
        tokens = (one.credential for one in await self._store.tokens() if not one.is_over(now))
        accounts = (one.key for one in await self.accounts.accounts() if one.enabled)
        return frozenset((*tokens, *accounts))

    async def of_token(self, token: ApiToken, peer: str) -> Caller | None:
        """The caller with a valid token, used from the address `peer`; None if its owner is disabled."""
        owner = await self.accounts.account(token.owner) if token.owner else None
        if token.owner and (owner is None or not owner.enabled):
            return None
        scopes = frozenset(token.scopes)
        if owner is not None:
            scopes &= await self.scopes_of(owner)
            scopes |= scopes_lent(self.grants.of(owner.key, self._clock.now()), token.credential)
        now = self._clock.now()
        if self._is_due(token.digest, token.last_used_at, now):
            await self._note(partial(self.accounts.touch_token, token.digest, now, peer))
        return Caller(token.principal_of(owner), scopes, Credential.TOKEN, token.owner)

    async def of_session(self, secret: str) -> Caller | None:
        """The caller with this secret of a session; None if there is none such, or it is over."""
        who = await self.signed_in(secret)
        return None if who is None else await self.caller_in(who.session, who.account)

    async def signed_in(self, secret: str) -> SignedIn | None:
        """The session with this secret, and its account; None if there is none such, or it is over."""
        found = await self.accounts.session(digest_of(secret))
        now = self._clock.now()
        if found is None or found[0].is_over(now) or not found[1].enabled:
            return None
        session, account = found
        if self._is_due(session.digest, session.last_used_at, now):
            await self._note(partial(self.accounts.touch_session, session.digest, now))
        return SignedIn(session, account)

    async def gate(self, who: SignedIn) -> FactorGate:
        """What the session has to do about its second factor before it may do anything else."""
        return await self._factors.gate(who)

    async def caller_in(self, session: Session, account: Account) -> Caller:
        """The caller in a session of this account."""
        gate = await self.gate(SignedIn(session, account))
        scopes = await self.scopes_of(account) if gate is FactorGate.OPEN else frozenset[Scope]()
        return Caller(
            account.in_session,
            scopes,
            Credential.SESSION,
            account.account_id,
            session.factor_at,
            session.session_id,
            gate,
        )

    async def still(self, caller: Caller) -> Caller:
        """The caller with what they may do still, after something that took its time."""
        if not caller.account_id:
            return caller
        account = await self.accounts.account(caller.account_id)
        scopes = frozenset[Scope]() if account is None else caller.scopes & await self.scopes_of(account)
        if caller.session_id:
            there = await self.accounts.sessions(caller.account_id)
            scopes = scopes if any(one.session_id == caller.session_id for one in there) else frozenset[Scope]()
        return replace(caller, scopes=scopes)

    def _is_due(self, digest: str, stored: float, now: float) -> bool:
        if not wants_touch(max(stored, self._touched.get(digest, 0.0)), now):
            return False
        self._touched[digest] = now
        self._touched.move_to_end(digest)
        if len(self._touched) > MAX_REMEMBERED:
            self._touched.popitem(last=False)
        return True

    async def _note(self, write: Callable[[], Awaitable[None]]) -> None:
        if self._store.health.trouble:
            return  # the request would wait for the disk
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_WAIT):
                await write()
