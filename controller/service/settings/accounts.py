"""The table `[accounts]`."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from controller.domain.accounts.relying_party import origin_of
from controller.domain.accounts.roles import BUILT_IN, Roles
from controller.domain.scopes import ALL, Scope, ordered
from controller.service.settings.base import SettingsTable

MAX_ROLES: Final = 32


def _origin(text: str) -> str:
    scheme, separator, host = text.rstrip("/").partition("://")
    origin = origin_of(scheme, host) if separator else None
    if origin is None or scheme != "https":
        raise ValueError("the address of the pages is https://host, or https://host:port, without a path")
    return origin


_RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
_RoleScopes = Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(ALL))]


class AccountSettings(SettingsTable):
    """`second_factor`: whether everybody needs one, once the first administrator has one. `roles`: custom ones.

    `url`: the address at which browsers reach Cordon, for passkeys; without it they are taken at `localhost` only.
    """

    second_factor: Literal["required", "optional"] = "required"
    url: Annotated[str, AfterValidator(_origin)] | None = None
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
