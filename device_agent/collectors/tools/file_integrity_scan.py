"""Scans watched files: metadata and SHA-256 of each, within bounds of files, bytes and time."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from device_agent.host.system import System

MAX_SECONDS: Final = 40.0  # of one scan
MAX_DEPTH: Final = 32  # folders below a watched path
MAX_PATH: Final = 1024  # characters; a longer path does not fit a report
_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a file; `sha256` is empty for a file without content or not read; times in nanoseconds."""

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
    def change_key(self) -> tuple[int, int, int, int]:
        """Metadata that differ whenever the content may have changed."""
        return self.size, self.mtime, self.ctime, self.inode


@dataclass(slots=True)
class IntegrityScan:
    """The scanned files by path; `unread` counts files and folders that could not be read."""

    files: dict[str, FileState] = field(default_factory=dict)
    unread: int = 0
    is_complete: bool = True


def scan_files(
    system: System,
    roots: Sequence[str],
    baseline: Mapping[str, FileState],
    *,
    max_files: int,
    max_bytes: int,
    clock: Callable[[], float] = time.monotonic,
) -> IntegrityScan:
    """Scans every file at or below `roots`; symbolic links are hashed by their target and not followed.

    A file with the change key of `baseline` is not read again. When a bound is reached, `is_complete` is false.
    """
    scan = IntegrityScan()
    deadline = clock() + MAX_SECONDS
    left = max_bytes
    for path in _scan_roots(system, roots, scan):
        if path in scan.files:
            continue
        if len(scan.files) >= max_files or clock() > deadline:
            scan.is_complete = False
            return scan
        try:
            status = system.path(path).lstat()
            current = _file_state(status, "")
            known = baseline.get(path)
            if (
                known is not None
                and known.sha256
                and (known.kind, known.change_key)
                == (
                    current.kind,
                    current.change_key,
                )
            ):
                digest = known.sha256
            elif current.kind == "file" and current.size > left:
                digest, scan.is_complete = "", False
            else:
                digest, count = _digest(system.path(path), current)
                left -= count
        except FileNotFoundError:
            continue
        except OSError:
            scan.unread += 1
            continue
        scan.files[path] = _file_state(status, digest)
    return scan


def _scan_roots(system: System, roots: Sequence[str], scan: IntegrityScan) -> Iterator[str]:
    for root in sorted(set(roots)):
        yield from _walk(system, "/" + root.strip("/"), scan, MAX_DEPTH)


def _walk(system: System, path: str, scan: IntegrityScan, depth: int) -> Iterator[str]:
    if len(path) > MAX_PATH:
        scan.is_complete = False
        return
    yield path
    folder = system.path(path)
    if not folder.is_dir() or folder.is_symlink():
        return
    if depth == 0:
        scan.is_complete = False
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return
    except OSError:
        scan.unread += 1
        return
    for name in names:
        yield from _walk(system, f"{path.rstrip('/')}/{name}", scan, depth - 1)


def _file_state(status: os.stat_result, digest: str) -> FileState:
    is_folder = stat.S_ISDIR(status.st_mode)
    return FileState(
        kind=_kind(status.st_mode),
        sha256=digest,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        # Size and times of a folder only change with its entries, which are scanned themselves.
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


def _digest(path: Path, state: FileState) -> tuple[str, int]:
    """Returns the SHA-256 and the number of bytes read, at most the size in `state`."""
    if state.kind == "link":
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest(), 0
    if state.kind != "file":
        return "", 0
    digest = hashlib.sha256()
    # A link or pipe that replaced the file meanwhile is neither followed nor waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    count = 0
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor is not a path
        while count < state.size and (chunk := file.read(min(_CHUNK, state.size - count))):
            digest.update(chunk)
            count += len(chunk)
    return digest.hexdigest(), count
