"""fscrypt: whether folders of a file system really carry an encryption policy, and not only its metadata."""

import array
import fcntl
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_agent.host.reading import READ_ERRORS, Reading, ReadingGap, error_reason
from device_agent.host.system import System
from schemas.safe_files import opened_folder

_POLICY: Final = re.compile(r"^[0-9a-f]{16}(?:[0-9a-f]{16})?$")  # files of fscrypt are named after their descriptor
_MAX_FOLDERS: Final = 4096  # of one file system
_MAX_DEPTH: Final = 3
_ENCRYPTED_FLAG: Final = 0x800  # FS_ENCRYPT_FL
# FS_IOC_GETFLAGS is _IOR('f', 1, long); these processors number the direction in another way.
_OTHER_DIRECTIONS: Final = ("mips", "ppc", "powerpc", "sparc", "alpha")


def encrypted_folder(system: System, mount: str, is_encrypted: Callable[[Path], bool] | None = None) -> Reading[bool]:
    """Returns whether a folder of a file system is encrypted; False without fscrypt's metadata of a policy.

    Args:
        system: the machine.
        mount: path of the file system.
        is_encrypted: whether a folder carries a policy, by default as the kernel answers (OSError).
    """
    folder = system.path(mount)
    try:
        policies = [name for name in os.listdir(folder / ".fscrypt/policies") if _POLICY.match(name)]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return Reading(value=False)
    except OSError as e:
        return Reading(value=False, gaps=(ReadingGap(error_reason(e), f"{mount.rstrip('/')}/.fscrypt"),))
    if not policies:
        return Reading(value=False)
    reason = ""
    try:
        found, is_whole = _search(folder, is_encrypted or has_policy)
    except READ_ERRORS as e:
        found, is_whole, reason = False, False, error_reason(e)
    if found or is_whole:
        return Reading(found)
    return Reading(value=False, gaps=(ReadingGap(reason or "no folder with a policy was found near the top", mount),))


def _search(top: Path, is_encrypted: Callable[[Path], bool]) -> tuple[bool, bool]:
    """Returns whether an encrypted folder was found, and whether every folder of the file system was looked at."""
    device = top.stat().st_dev
    level, left, is_whole = [top], _MAX_FOLDERS, True
    for _ in range(_MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            left -= 1
            if left < 0:
                return False, False
            if is_encrypted(folder):
                return True, True
            with os.scandir(folder) as entries:
                inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            below += [path for path in inner if path.lstat().st_dev == device]
        level = below[: _MAX_FOLDERS + 1]
    return False, is_whole and not level


def has_policy(folder: Path) -> bool:
    """Whether the kernel marks a folder as encrypted.

    Raises:
        OSError: the folder cannot be opened, or its file system has no flags.
    """
    flags = array.array("l", [0])
    with opened_folder(folder, links=False) as descriptor:
        fcntl.ioctl(descriptor, _request(), flags)
    return bool(flags[0] & _ENCRYPTED_FLAG)


def _request() -> int:
    read = 0x4000_0000 if platform.machine().startswith(_OTHER_DIRECTIONS) else 0x8000_0000
    return read | array.array("l").itemsize << 16 | ord("f") << 8 | 1
