"""Scopes for a while ("operator for two hours because ..."): given by a second person, ended by the clock. Pure."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from controller.domain.principal import Principal
from controller.domain.scopes import Scope, ordered

MIN_GRANT: Final = 60.0  # seconds
MAX_GRANT: Final = 8 * 3600.0  # seconds
# Who administers accounts for an hour makes that permanent.
_NEVER_LENT: Final = frozenset({Scope.ADMIN})


@dataclass(frozen=True, slots=True)
class ScopeGrant:
    """Scopes that a person has from `begins_at` until before `ends_at` (Unix seconds).

    `person`: key of the principal. `credential`: key of the token that asked, empty for a session: no other token of
    the person gets more than it was made with.
    """

    grant_id: str
    person: str
    credential: str
    scopes: tuple[Scope, ...]
    granted_by: Principal
    begins_at: float
    ends_at: float

    def is_in_force(self, now: float) -> bool:
        """Whether it counts at `now`; a clock that went back before its begin gives nothing."""
        return self.begins_at <= now < self.ends_at


class GrantNotPossibleError(ValueError):
    """These scopes cannot be given for this time; the text says why."""


def check_wanted(wanted: Sequence[Scope], seconds: float, held: AbstractSet[Scope]) -> None:
    """Checks what a person with the scopes `held` asks for.

    Raises:
        GrantNotPossibleError: a scope is never given for a while or is there already, or the time is out of bounds.
    """
    never = _NEVER_LENT.intersection(wanted)
    if never:
        words = ", ".join(ordered(never))
        raise GrantNotPossibleError(f"the scope {words} is never given for a while: an administrator changes the role")
    there = frozenset(held) & frozenset(wanted)
    if there:
        raise GrantNotPossibleError(f"you have the scope {', '.join(ordered(there))} already")
    if not MIN_GRANT <= seconds <= MAX_GRANT:
        raise GrantNotPossibleError(f"scopes are given for {MIN_GRANT:.0f}s to {MAX_GRANT / 3600:.0f}h")


def in_force(grants: Iterable[ScopeGrant], person: str, now: float) -> tuple[ScopeGrant, ...]:
    """Returns the grants of a person that count at `now`."""
    return tuple(one for one in grants if one.person == person and one.is_in_force(now))


def scopes_lent(grants: Iterable[ScopeGrant], credential: str | None = None) -> frozenset[Scope]:
    """Returns the scopes of these grants; with `credential`, of those that the token of this key asked for."""
    return frozenset(
        scope for one in grants if credential is None or one.credential == credential for scope in one.scopes
    )
