"""The name of this boot of the machine."""

from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The kernel's name for this boot; empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()[:64]
    except OSError:
        return ""
