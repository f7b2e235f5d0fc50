"""Passwords, passphrases and tokens: the first line of what their source gives."""

from pathlib import Path

from device_agent.errors import SettingsError
from schemas.secret_sources import MAX_SECRET, OutsideSecret, SecretError, SecretSource, secret_source, why_unreadable


def read_secret(source: SecretSource, what: str) -> str:
    """Returns the first line of a secret; `what` names the setting in errors.

    Raises:
        SettingsError: it cannot be had, is not text, or is empty.
    """
    try:
        lines = (source.read() if isinstance(source, OutsideSecret) else _content(source)).splitlines()
    except SecretError as e:
        raise SettingsError(f"{what}: {e}") from e
    except UnicodeDecodeError:
        raise SettingsError(f"{what}: {source} is not text") from None  # the error has the content
    if not lines or not lines[0]:
        raise SettingsError(f"{what}: the secret in {source} is empty")
    return lines[0]


def read_given_secret(text: str, option: str) -> str:
    """As `read_secret`, of a source on the command line (SettingsError: also where it is malformed)."""
    try:
        return read_secret(secret_source(text), option)
    except ValueError as e:
        raise SettingsError(f"{option}: {e}") from e


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_SECRET).decode()
    except OSError as e:
        raise SecretError(why_unreadable(file, e)) from e
