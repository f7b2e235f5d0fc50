"""Who calls a route of the API, by token or by session."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.accounts.account import Account
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.session import Session
from controller.domain.principal import Principal
from controller.domain.scopes import Scope, ordered

STEP_UP: Final = 300.0  # seconds for which a second factor counts as fresh


class Credential(StrEnum):
    """What a caller presented."""

    TOKEN = "token"  # noqa: S105 - a kind
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session and its account, as they were when the request came."""

    session: Session
    account: Account


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do now.

    `scopes`: of a session those of the account's role, with what was granted for a time; of a token what it and its
    owner both have. `account_id`: empty for a token without owner. `factor_at`: Unix seconds of the last second factor
    in this session, 0 without one. `session_id`: empty for a token. `gate`: what a session has to do about its second
    factor before anything else; until then it has no scopes.
    """

    principal: Principal
    scopes: frozenset[Scope]
    credential: Credential
    account_id: str = ""
    factor_at: float = 0.0
    session_id: str = ""
    gate: FactorGate = FactorGate.OPEN

    @property
    def actor(self) -> str:
        """As audit lines name it."""
        return self.principal.actor

    @property
    def shown_scopes(self) -> tuple[Scope, ...]:
        """In the order in which scopes are listed everywhere."""
        return ordered(self.scopes)

    def has_fresh_factor(self, now: float) -> bool:
        """Whether this session had a second factor within `STEP_UP`."""
        return 0.0 <= now - self.factor_at < STEP_UP and self.factor_at > 0.0
