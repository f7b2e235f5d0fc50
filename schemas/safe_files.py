"""Opens, reads, creates and replaces files, and changes modes and owners, while others may swap every part of a path.

Changing: the folder is opened part by part. A link in its path is followed only if root or this process's user owns it,
where `links` permits any at all. Everything in the folder is then done by name in the opened folder, on regular files
with one name, without following links; modes and owners are set on the opened file.

Reading: links are followed, as the programs whose files are read do (merged `/usr`, `/etc/ssl/certs`, the `..data` of
mounted secrets, links to `/dev/null`). What a path leads to is looked at before it is opened, so that no device is ever
opened and no pipe waited for.

Linux only: `O_PATH`, and `/proc`, through which a file that was looked at is opened.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, runtime_checkable

MODE_BITS: Final = 0o777  # of files: never set-uid, set-gid or sticky
_FOLDER_MODE_BITS: Final = 0o1777
_MAX_LINKS: Final = 40
_LOOKED_AT: Final = os.O_PATH | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class NotRegularError(OSError):
    """A folder, device, pipe or socket in the place of a file."""


class UnsafePathError(OSError):
    """A link, or a file with several names, where none is accepted."""


@runtime_checkable
class OwnPath(Protocol):
    """A path that resolves itself, such as one inside an image."""

    def look_at(self) -> int:
        """Returns a descriptor without access (`O_PATH`) of what the path leads to (OSError)."""
        ...


@contextmanager
def opened_folder(path: Path, *, links: bool = True) -> Iterator[int]:
    """Gives the descriptor of a folder.

    Args:
        path: the folder.
        links: whether links of root and of this user are followed; links of others never are.

    Raises:
        UnsafePathError: a link that is not followed.
        OSError: no such folder, or it may not be read.
    """
    descriptor = _walk(path.absolute(), links)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_for_reading(path: Path, buffering: int = -1) -> BinaryIO:
    """Opens the regular file that a path leads to, through links; `buffering` as in `open`.

    Raises:
        NotRegularError: it is something else.
        OSError: it does not exist, or cannot be opened.
    """
    seen = path.look_at() if isinstance(path, OwnPath) else os.open(path, _LOOKED_AT)
    return os.fdopen(_reopen(seen, os.O_RDONLY, str(path)), "rb", buffering)


def open_own(folder: int, name: str, mode: int | None = None) -> int:
    """Opens a file of a folder for reading and writing; with `mode` it is created where it is absent.

    Raises:
        NotRegularError, UnsafePathError: not a regular file, or one with several names.
        OSError: it does not exist, or cannot be opened.
    """
    while True:
        try:
            seen = os.open(name, _LOOKED_AT | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if mode is None:
                raise
        else:
            return _reopen(seen, os.O_RDWR, name, has_one_name=True)
        try:
            descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        except FileExistsError:
            continue
        os.fchmod(descriptor, mode & MODE_BITS)
        return descriptor


def open_key(folder: int, name: str) -> int:
    """Opens a file of a folder for reading, in order to change its mode or owner (as `open_own`)."""
    seen = os.open(name, _LOOKED_AT | os.O_NOFOLLOW, dir_fd=folder)
    return _reopen(seen, os.O_RDONLY, name, has_one_name=True)


def lacks_links(error: OSError) -> bool:
    """Whether a link failed because the file system has no hard links, as FAT and some network shares."""
    return error.errno in _NO_LINKS


def _give_name(temporary: str, name: str, folder: int) -> None:
    """Unlike a rename this never replaces; without hard links an empty file has the name for a moment."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as e:
        if not lacks_links(e):
            raise
        os.close(os.open(name, _NEW, 0o600, dir_fd=folder))
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def save(
    path: Path,
    temporary: str,
    write: Callable[[BinaryIO], object],
    mode: int,
    *,
    replace: bool = True,
    owner: tuple[int, int] | None = None,
) -> None:
    """Writes a whole file durably: a reader, or a crash, sees the old file or the new one.

    Args:
        path: the file; its folder exists.
        temporary: name of the new file in the same folder until it is whole; what has this name is removed.
        write: writes the content.
        mode: permissions; other bits are left out.
        replace: whether an existing file is replaced; without it an existing file is left as it is.
        owner: user and group of the new file, of this process if None.

    Raises:
        FileExistsError: the file exists and `replace` is false.
        UnsafePathError: a link of another user in the path, or another file took the place of the new one.
        OSError: it cannot be written.
    """
    with opened_folder(path.parent) as folder:
        _unlink(folder, temporary)
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode & MODE_BITS)
                os.fsync(file.fileno())
                if replace:
                    os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                else:
                    _give_name(temporary, path.name, folder)
                if not _is_same(os.fstat(file.fileno()), os.lstat(path.name, dir_fd=folder)):
                    raise UnsafePathError(errno.EPERM, "another file took its place", str(path))
        finally:
            _unlink(folder, temporary)
        os.fsync(folder)


def set_folder_mode(folder: int, mode: int) -> None:
    """Sets permissions and sticky bit of an opened folder; its set-gid bit stays as it is."""
    os.fchmod(folder, mode & _FOLDER_MODE_BITS | os.fstat(folder).st_mode & stat.S_ISGID)


def _walk(path: Path, links: bool) -> int:
    parts = list(path.parts[1:])
    at = os.open("/", _LOOKED_AT | os.O_DIRECTORY)
    followed = 0
    try:
        while parts:
            part = parts.pop(0)
            found = os.open(part, _LOOKED_AT | os.O_NOFOLLOW, dir_fd=at)
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                os.close(at)
                at = found
                continue
            try:
                followed += 1
                is_trusted = links and status.st_uid in {0, os.geteuid()} and followed <= _MAX_LINKS
                if not is_trusted:
                    raise UnsafePathError(errno.ELOOP, f"{part} is a link, which is not followed here", str(path))
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            parts[:0] = [one for one in target.split("/") if one not in {"", "."}]
            if target.startswith("/"):
                os.close(at)
                at = os.open("/", _LOOKED_AT | os.O_DIRECTORY)
        return os.open(".", _FOLDER, dir_fd=at)
    except OSError as e:
        raise type(e)(e.errno, e.strerror, str(path)) from e
    finally:
        os.close(at)


def _reopen(seen: int, flags: int, name: str, *, has_one_name: bool = False) -> int:
    """Opens what a descriptor without access points to, after looking at it; closes that descriptor."""
    try:
        status = os.fstat(seen)
        if has_one_name and (stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink != 1)):
            raise UnsafePathError(errno.ELOOP, "a symbolic link, or a file with several names", name)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", name)
        return os.open(f"/proc/self/fd/{seen}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as e:
        raise OSError(errno.ENOSYS, "cannot be opened without /proc", name) from e
    except PermissionError as e:
        raise PermissionError(e.errno, e.strerror, name) from e
    finally:
        os.close(seen)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _unlink(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
