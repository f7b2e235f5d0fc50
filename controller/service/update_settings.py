"""The `[updates]` part of `cordon.toml`: where signed updates lie, and how devices fetch them."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from controller.service.settings_base import Duration, Part

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UpdateSettings(Part):
    """`folder` is made by `cordon update init`; `listen` serves it to devices, where no other web server does.

    `url` is the address as devices see it: whoever enrols is told it, with the root.

    Beyond loopback certificate and key are needed; with `client_ca` only devices with a certificate of that CA get in.
    `mib_per_second` bounds all downloads together (0: no bound), `max_downloads` how many there are at a time.
    """

    folder: Path | None = None
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=300)] | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    mib_per_second: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    max_downloads: Annotated[int, Field(ge=1, le=10_000)] = 64
    refresh_every: Annotated[Duration, Field(ge=1.0, le=21_600.0)] = 600.0

    @property
    def host(self) -> str:
        """The host part of `listen`, without brackets."""
        return (self.listen or "").rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of `listen`; 0 takes a free one."""
        return int((self.listen or ":0").rpartition(":")[2])

    @model_validator(mode="after")
    def _served_safely(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.listen is not None and self.folder is None:
            raise ValueError("listen needs folder")
        if self.listen is not None and self.certificate is None and self.host not in _LOOPBACK:
            raise ValueError("beyond loopback updates are served with certificate and key")
        return self
