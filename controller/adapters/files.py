"""Durable writes and secret files: the only place of the controller that creates, replaces and syncs files."""

import codecs
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from controller.ports.errors import SettingsError
from schemas.safe_files import lacks_links, open_for_reading, opened_folder, save
from schemas.secret_sources import (
    MAX_SECRET,
    OutsideSecret,
    SecretError,
    SecretSource,
    forbidden_modes,
    why_unreadable,
)

SECRET_MODE: Final = 0o600
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


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
    # Random, so that two processes that write one file do not disturb each other.
    save(path, f".{path.name}.{secrets.token_hex(8)}", write, mode, replace=replace)


@contextlib.contextmanager
def as_owner(path: Path) -> Iterator[None]:
    """As root, works with the rights of the owner of a folder or file: links then lead to nothing they may not use.

    Opening by descriptor is not enough where SQLite opens files by their paths. Without root, or for what root owns,
    nothing changes.

    Raises:
        UnsafePathError: as root, a link of another user in the path.
        OSError: there is no such path.
    """
    owner = _owner_of(path) if os.geteuid() == 0 else path.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _owner_of(path: Path) -> os.stat_result:
    """Returns the status of what a path leads to; of a link at its end that others made, that of the link."""
    if path.is_dir():
        with opened_folder(path) as folder:
            return os.fstat(folder)
    with opened_folder(path.absolute().parent) as folder:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    return path.stat() if stat.S_ISLNK(status.st_mode) and status.st_uid == 0 else status


def give_name(file: Path, path: Path) -> None:
    """Gives a whole file the name `path` too, or instead; never replaces a file.

    On file systems without hard links (FAT, some network shares) an empty file has the name for a moment, and keeps it
    if the machine stops in between.

    Raises:
        FileExistsError: `path` exists.
        OSError: it cannot be written.
    """
    try:
        os.link(file, path)
    except OSError as e:
        if not lacks_links(e):
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, SECRET_MODE))
        file.replace(path)


def sync_folder(folder: Path) -> None:
    """Makes a created, renamed or removed name in `folder` survive a power loss, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def read_secret(source: SecretSource, what: str, *, most: int = MAX_SECRET, may_be_open: bool = False) -> str:
    """Returns a secret without its last newline; `what` names the setting in errors.

    `may_be_open`: others may read its file.

    Raises:
        SettingsError: it cannot be had, is not text, is empty or larger than `most` bytes, or others can read its file.
    """
    if isinstance(source, OutsideSecret):
        try:
            return source.read(most)
        except SecretError as e:
            raise SettingsError(f"{what}: {e}") from e
    try:
        with open_for_reading(source) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(most + 1)
    except OSError as e:
        raise SettingsError(f"{what}: {why_unreadable(source, e)}") from e
    if not may_be_open and stat.S_IMODE(mode) & forbidden_modes(source):
        raise SettingsError(f"{what}: others can read {source}; mend it with: chmod 600 {source}")
    if not content.removeprefix(codecs.BOM_UTF8).strip() or len(content) > most:
        raise SettingsError(f"{what}: {source} is empty or larger than {most} bytes")
    try:
        return content.decode("utf-8-sig").rstrip("\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{what}: {source} is not text") from None  # the error has the content


def read_line(source: SecretSource, what: str) -> str:
    """Returns the first line of a secret, as `read_secret`: entries of password managers have notes below it."""
    return read_secret(source, what).split("\n", 1)[0].rstrip("\r")


def read_passphrase(source: SecretSource, what: str, *, may_be_open: bool = False) -> str:
    """Returns the first line of a secret, and the whole of a file: passphrases in files may have several lines."""
    return read_secret(source, what, may_be_open=may_be_open) if isinstance(source, Path) else read_line(source, what)
