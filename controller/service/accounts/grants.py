"""The scopes that persons have for a while, looked up with every request of the API."""

from collections.abc import Mapping

from controller.domain.accounts.grants import ScopeGrant, in_force


class GrantsInForce:
    """Holds the grants that may still count; who gives and ends them keeps it up to date."""

    def __init__(self) -> None:
        self._grants: dict[str, ScopeGrant] = {}

    def put(self, grant_id: str, grant: ScopeGrant | None) -> None:
        """Replaces a grant; None: there is none such."""
        if grant is None:
            self._grants.pop(grant_id, None)
        else:
            self._grants[grant_id] = grant

    def replace_all(self, grants: Mapping[str, ScopeGrant]) -> None:
        """Replaces every grant, by its id."""
        self._grants = dict(grants)

    def of(self, person: str, now: float) -> tuple[ScopeGrant, ...]:
        """The grants of a person (`Principal.key`) that count at `now` (Unix seconds)."""
        return in_force(self._grants.values(), person, now) if self._grants else ()
