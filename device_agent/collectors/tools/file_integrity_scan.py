"""Looks at watched files: what each one is and the SHA-256 of its content, within bounds of files, bytes and time."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from device_agent.host.system import System

MAX_SECONDS: Final = 40.0  # for one look
MAX_DEPTH: Final = 32  # folders below a watched path
MAX_PATH: Final = 1024  # characters; a longer one does not fit a report
_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was; `sha256` is empty where it has no content to read, or was not read; times in nanoseconds."""

    kind: str
    sha256: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: int

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        """What changes whenever the content may have changed."""
        return self.size, self.mtime, self.ctime, self.inode


@dataclass(slots=True)
class IntegrityScan:
    """Everything that was seen, by its path on the device, and what was not."""

    files: dict[str, FileState] = field(default_factory=dict)
    unread: int = 0
    is_complete: bool = True


def look(
    system: System,
    roots: Sequence[str],
    known: Mapping[str, FileState],
    *,
    max_files: int,
    max_bytes: int,
    clock: Callable[[], float] = time.monotonic,
) -> IntegrityScan:
    """Look at every file at or below `roots`; links are looked at, not followed.

    A file whose stamp is that of `known` is not read again. Where a bound is reached, `is_complete` is false.
    """
    found = IntegrityScan()
    deadline = clock() + MAX_SECONDS
    left = max_bytes
    for path in _below(system, roots, found):
        if path in found.files:
            continue
        if len(found.files) >= max_files or clock() > deadline:
            found.is_complete = False
            return found
        try:
            status = system.path(path).lstat()
            seen = _seen(status, "")
            before = known.get(path)
            if before is not None and before.sha256 and (before.kind, before.stamp) == (seen.kind, seen.stamp):
                content = before.sha256
            elif seen.kind == "file" and seen.size > left:
                content, found.is_complete = "", False
            else:
                content, count = _content(system.path(path), seen)
                left -= count
        except FileNotFoundError:
            continue
        except OSError:
            found.unread += 1
            continue
        found.files[path] = _seen(status, content)
    return found


def _below(system: System, roots: Sequence[str], found: IntegrityScan) -> Iterator[str]:
    for root in sorted(set(roots)):
        yield from _walk(system, "/" + root.strip("/"), found, MAX_DEPTH)


def _walk(system: System, path: str, found: IntegrityScan, depth: int) -> Iterator[str]:
    if len(path) > MAX_PATH:
        found.is_complete = False
        return
    yield path
    where = system.path(path)
    if not where.is_dir() or where.is_symlink():
        return
    if depth == 0:
        found.is_complete = False
        return
    try:
        with os.scandir(where) as entries:
            names = sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return
    except OSError:
        found.unread += 1
        return
    for name in names:
        yield from _walk(system, f"{path.rstrip('/')}/{name}", found, depth - 1)


def _seen(status: os.stat_result, content: str) -> FileState:
    is_folder = stat.S_ISDIR(status.st_mode)
    return FileState(
        kind=_kind(status.st_mode),
        sha256=content,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        # Size and times of a folder only say that something below it came or went, which is seen there.
        size=0 if is_folder else status.st_size,
        mtime=0 if is_folder else status.st_mtime_ns,
        ctime=0 if is_folder else status.st_ctime_ns,
        inode=0 if is_folder else status.st_ino,
    )


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"


def _content(path: Path, seen: FileState) -> tuple[str, int]:
    """The digest, and how many bytes were read for it; at most as many as the file had."""
    if seen.kind == "link":
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest(), 0
    if seen.kind != "file":
        return "", 0
    digest = hashlib.sha256()
    # What is exchanged for a link or a pipe in between is neither followed nor waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    count = 0
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor is not a path
        while count < seen.size and (chunk := file.read(min(_CHUNK, seen.size - count))):
            digest.update(chunk)
            count += len(chunk)
    return digest.hexdigest(), count
