"""The table `[notifications]` of `cordon.toml`."""

from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator

from controller.service.settings.base import ConfigSecret, SettingsTable

MAX_SECRETS: Final = 64
SECRET_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # noqa: S105 - a pattern of names
_Name = Annotated[str, StringConstraints(pattern=SECRET_NAME)]
_Server = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:.-]{1,253}:[0-9]{1,5}$")]


class NotificationSettings(SettingsTable):
    """`secrets`: what sinks use by name: keys that sign, passwords of mail servers, URLs that are secrets.

    Sinks are added through the API; where a secret is read from is decided here, on this machine, so that whoever
    administers through the API can have no other file read or program run. `mail_servers`: for a secret that is a
    password, the mail server (`host:port`) that gets it: a server sees the password, so the API must not choose it.
    """

    secrets: dict[_Name, ConfigSecret] = Field(max_length=MAX_SECRETS, default_factory=dict)
    mail_servers: dict[_Name, _Server] = Field(max_length=MAX_SECRETS, default_factory=dict)

    @model_validator(mode="after")
    def _names_are_of_secrets(self) -> Self:
        unknown = sorted(self.mail_servers.keys() - self.secrets.keys())
        if unknown:
            raise ValueError(f"mail_servers: there is no secret {', '.join(unknown)}")
        return self
