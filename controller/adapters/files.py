"""Durable writes and secret files: the only place of the controller that creates, replaces and syncs files."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from controller.ports.errors import SettingsError

SECRET_MODE: Final = 0o600
_MAX_SECRET: Final = 4096  # bytes
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def write_file(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    """Writes a whole file durably: a reader, or a crash, sees the old file or the new one.

    Args:
        path: the file; its folder exists.
        content: the new bytes.
        mode: permissions of the new file.
        replace: whether an existing file is replaced; without it an existing file is left as it is.

    Raises:
        FileExistsError: the file exists and `replace` is false.
        OSError: it cannot be written.
    """
    save_file(path, lambda file: file.write(content), mode, replace=replace)


def save_file(path: Path, write: Callable[[BinaryIO], object], mode: int, *, replace: bool) -> None:
    """As `write_file`, for content that `write` produces piece by piece."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(name).replace(path)
        else:
            os.link(name, path)  # unlike a rename this never replaces
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a created, renamed or removed name in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path, what: str, *, most: int = _MAX_SECRET) -> str:
    """Returns the content of a secret file without its last newline; `what` names the setting in errors.

    Raises:
        SettingsError: it cannot be read, is not text, is empty or larger than `most` bytes, or others can read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(most + 1)
    except OSError as e:
        raise SettingsError(f"{what}: {path} cannot be read: {e.strerror}") from e
    if stat.S_IMODE(mode) & _OTHERS:
        raise SettingsError(f"{what}: others can read {path}; mend it with: chmod 600 {path}")
    if not content.strip() or len(content) > most:
        raise SettingsError(f"{what}: {path} is empty or larger than {most} bytes")
    try:
        return content.decode().rstrip("\n")
    except UnicodeDecodeError as e:
        raise SettingsError(f"{what}: {path} is not text") from e
