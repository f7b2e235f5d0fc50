"""Looks at the modes of key files that others open for us: uvicorn and TUF would take a key that anybody can read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from controller.adapters.secret_files import read_secret
from controller.adapters.tuf_repository.folder import Folder
from controller.adapters.x509.folder import ISSUING_KEY
from controller.service.settings import Settings

_MAX_KEY: Final = 64 * 1024  # bytes


def check_secret_files(settings: Settings) -> None:
    """Refuse to start with a key that others can read, before anything is opened.

    Raises:
        SettingsError: with the command that mends it.
    """
    for what, path in _keys(settings):
        read_secret(path, what, most=_MAX_KEY)


def _keys(settings: Settings) -> Iterator[tuple[str, Path]]:
    if settings.api.key is not None:
        yield "api.key", settings.api.key
    if settings.updates.key is not None:
        yield "updates.key", settings.updates.key
    if settings.updates.folder is not None:
        for path in sorted(Folder(settings.updates.folder).online.glob("*.pem")):
            yield "updates.folder", path
    if settings.authority.folder is not None:
        yield "authority.folder", settings.authority.folder / ISSUING_KEY
