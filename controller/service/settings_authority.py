"""The part of `cordon.toml` about Cordon's certificate authority."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from controller.service.settings_base import Duration, Part

MAX_WATCHED: Final = 16
_LISTEN: Final = r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$"


def _list_place(text: str) -> str:
    if not text.startswith(("/", "http://", "https://")):
        raise ValueError("a revocation list is an absolute path or an address http(s)://...")
    return text


class AuthoritySettings(Part):
    """`folder` is what `cordon ca init` made; without it this controller issues nothing."""

    folder: Path | None = None
    passphrase_file: Path | None = None
    crl_url: Annotated[str, Field(pattern=r"^http://[^/\s]+$")] | None = None
    crl_listen: Annotated[str, Field(pattern=_LISTEN)] | None = None
    device_lifetime: Annotated[Duration, Field(ge=10.0, le=397 * 86_400.0)] = 30 * 86_400.0
    server_lifetime: Annotated[Duration, Field(ge=10.0, le=397 * 86_400.0)] = 90 * 86_400.0
    crl_lifetime: Annotated[Duration, Field(ge=60.0, le=30 * 86_400.0)] = 86_400.0
    readmit_after: Annotated[Duration, Field(ge=0.0, le=86_400.0)] = 900.0
    device_servers: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    watch: Annotated[tuple[Annotated[str, AfterValidator(_list_place)], ...], Field(max_length=MAX_WATCHED)] = ()
    watch_issuers: Path | None = None
    watch_every: Annotated[Duration, Field(ge=1.0, le=86_400.0)] = 300.0

    @model_validator(mode="after")
    def _complete(self) -> "AuthoritySettings":
        if self.watch and self.folder is None:
            raise ValueError("watch needs an authority: make one with `cordon ca init`, even if it issues nothing")
        if self.watch and self.watch_issuers is None:
            raise ValueError("watch needs watch_issuers: a list whose signature nobody can check revokes nobody")
        return self
