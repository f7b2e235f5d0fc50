"""Secrets from files: refused where others than their owner could read them."""

import stat
from pathlib import Path
from typing import Final

from controller.ports.errors import SettingsError

_MAX_SECRET: Final = 4096  # bytes


def read_secret(path: Path, what: str, *, most: int = _MAX_SECRET) -> str:
    """The content of a secret file, without its last newline.

    Raises:
        SettingsError: it cannot be read, is empty or too large, or others than its owner may read it.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as e:
        raise SettingsError(f"{what}: {path} cannot be read: {e.strerror}") from e
    if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{what}: others can read {path}; mend it with: chmod 600 {path}")
    if not content.strip() or len(content) > most:
        raise SettingsError(f"{what}: {path} is empty or larger than {most} bytes")
    return content.decode(errors="strict").rstrip("\n")
