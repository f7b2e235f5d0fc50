"""The table `[accounts.sso]`: the OpenID provider through which people sign in."""

import hashlib
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from controller.domain.accounts.sso import GroupRole, SsoRules
from controller.service.settings.base import ConfigPath, ConfigSecret, SettingsTable, is_loopback

MAX_ENTRIES: Final = 200  # groups with a role
_Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Word = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]  # of a list that spaces separate


class GroupSettings(SettingsTable):
    """Who is in `group`, as the provider names it, has `role`."""

    group: _Text
    role: _Text


class SsoSettings(SettingsTable):
    """`name` is what the page for logging in calls the provider. The first of `groups` that a person is in counts.

    `acr_values` and `amr_values`: which words of the provider stand for a second factor. `enforced`: passwords are for
    the accounts of `break_glass` only.
    """

    name: _Text = "single sign-on"
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    client_id: Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,256}$")]
    client_secret: ConfigSecret
    ca: ConfigPath | None = None
    scopes: Annotated[tuple[_Word, ...], Field(max_length=16)] = ("openid", "profile")
    groups_claim: _Text = "groups"
    groups: Annotated[tuple[GroupSettings, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    acr_values: Annotated[tuple[_Word, ...], Field(max_length=16)] = ()
    amr_values: Annotated[tuple[_Word, ...], Field(max_length=16)] = ()
    enforced: bool = False
    break_glass: Annotated[tuple[_Text, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise ValueError("issuer: the provider is at https://..., or on this machine")
        if "openid" not in self.scopes:
            raise ValueError("scopes: openid is missing")
        if self.enforced and not self.break_glass:
            raise ValueError("enforced needs break_glass: an account with a password for the day the provider is away")
        return self

    @property
    def rules(self) -> SsoRules:
        groups = tuple(GroupRole(one.group, one.role) for one in self.groups)
        what = self.model_dump_json(include={"issuer", "client_id", "scopes", "groups_claim", "groups"})
        digest = hashlib.sha256(what.encode()).hexdigest()
        return SsoRules(groups, self.acr_values, self.amr_values, self.issuer, self.enforced, self.break_glass, digest)
