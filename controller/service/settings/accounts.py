"""The table `[accounts]`."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from controller.domain.accounts.relying_party import origin_of
from controller.domain.accounts.roles import BUILT_IN, Roles
from controller.domain.scopes import ALL, Scope, ordered
from controller.service.settings.base import SettingsTable
from controller.service.settings.sso import SsoSettings

MAX_ROLES: Final = 32


def _origin(text: str) -> str:
    scheme, separator, host = text.rstrip("/").partition("://")
    origin = origin_of(scheme, host) if separator else None
    if origin is None or (scheme != "https" and host.partition(":")[0] != "localhost"):
        raise ValueError("the address of the pages is https://host, or https://host:port, without a path")
    return origin


_RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
_RoleScopes = Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(ALL))]


class AccountSettings(SettingsTable):
    """`second_factor`: whether everybody needs one, once the first administrator has one. `roles`: custom ones.

    `url`: the address at which browsers reach Cordon, for passkeys and single sign-on; without it passkeys are taken at
    `localhost` only.
    """

    second_factor: Literal["required", "optional"] = "required"
    url: Annotated[str, AfterValidator(_origin)] | None = None
    roles: dict[_RoleName, _RoleScopes] = Field(default_factory=dict, max_length=MAX_ROLES)
    sso: SsoSettings | None = None

    @field_validator("roles")
    @classmethod
    def _check_names(cls, roles: dict[str, tuple[Scope, ...]]) -> dict[str, tuple[Scope, ...]]:
        if taken := sorted(roles.keys() & BUILT_IN.keys()):
            raise ValueError(f"{', '.join(taken)}: built in, choose another name")
        return roles

    @model_validator(mode="after")
    def _check_sso(self) -> Self:
        if self.sso is None:
            return self
        if self.url is None:
            raise ValueError("sso needs url: the provider sends people back to url/login/sso/callback")
        if unknown := sorted({one.role for one in self.sso.groups} - set(self.all_roles.names)):
            raise ValueError(f"sso.groups: no such role: {', '.join(unknown)}")
        return self

    @property
    def all_roles(self) -> Roles:
        return Roles({name: ordered(scopes) for name, scopes in self.roles.items()})
