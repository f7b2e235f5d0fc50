"""The table `[accounts]`."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, field_validator

from controller.domain.accounts.roles import BUILT_IN, Roles
from controller.domain.scopes import ALL, Scope, ordered
from controller.service.settings.base import SettingsTable

MAX_ROLES: Final = 32
_RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
_RoleScopes = Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(ALL))]


class AccountSettings(SettingsTable):
    """`second_factor`: whether everybody needs one, once the first administrator has one. `roles`: custom ones."""

    second_factor: Literal["required", "optional"] = "required"
    roles: dict[_RoleName, _RoleScopes] = Field(default_factory=dict, max_length=MAX_ROLES)

    @field_validator("roles")
    @classmethod
    def _check_names(cls, roles: dict[str, tuple[Scope, ...]]) -> dict[str, tuple[Scope, ...]]:
        if taken := sorted(roles.keys() & BUILT_IN.keys()):
            raise ValueError(f"{', '.join(taken)}: built in, choose another name")
        return roles

    @property
    def all_roles(self) -> Roles:
        return Roles({name: ordered(scopes) for name, scopes in self.roles.items()})
