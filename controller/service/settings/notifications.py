"""The table `[notifications]` of `cordon.toml`."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from controller.service.settings.base import ConfigSecret, SettingsTable

MAX_SECRETS: Final = 64
SECRET_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # noqa: S105 - a pattern of names
_Name = Annotated[str, StringConstraints(pattern=SECRET_NAME)]


class NotificationSettings(SettingsTable):
    """`secrets`: what sinks use by name: keys that sign, passwords of mail servers, URLs that are secrets.

    Sinks are added through the API; where a secret is read from is decided here, on this machine, so that whoever
    administers through the API can have no other file read or program run.
    """

    secrets: dict[_Name, ConfigSecret] = Field(max_length=MAX_SECRETS, default_factory=dict)
