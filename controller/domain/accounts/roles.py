"""Roles: named sets of scopes. Some are built in, others are in `[accounts.roles]` of the configuration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.domain.scopes import ALL, Scope, ordered

ADMIN_ROLE: Final = "admin"
BUILT_IN: Final[Mapping[str, tuple[Scope, ...]]] = {
    "viewer": (Scope.READ,),
    "operator": (Scope.READ, Scope.CONTAIN, Scope.COMMAND),
    "maintainer": (Scope.READ, Scope.CONTAIN, Scope.COMMAND, Scope.POLICY, Scope.ROLLOUT),
    "identity": (Scope.READ, Scope.IDENTITY),
    "auditor": (Scope.READ, Scope.AUDIT),
    ADMIN_ROLE: ALL,
}


@dataclass(frozen=True, slots=True)
class Roles:
    """All roles there are; a custom one never replaces a built-in one."""

    custom: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Built-in roles first."""
        return (*BUILT_IN, *(name for name in self.custom if name not in BUILT_IN))

    def scopes_of(self, role: str) -> frozenset[Scope]:
        """What a role permits; nothing, if the configuration does not have it any more."""
        return frozenset(BUILT_IN.get(role) or self.custom.get(role, ()))

    def loses(self, before: str, after: str) -> bool:
        """Whether somebody has less by the role `after`."""
        return not self.scopes_of(before) <= self.scopes_of(after)

    def exceeding(self, role: str, held: Iterable[Scope]) -> tuple[Scope, ...]:
        """The scopes of a role that are not held: nobody gives away more than they have."""
        return ordered(self.scopes_of(role) - frozenset(held))
