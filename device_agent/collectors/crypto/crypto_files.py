"""The files below the folders of keys and certificates: found and read with bounds, whoever owns the folder."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.collectors.reading import GapRecorder, reason_of
from device_agent.host.system import System

MAX_DEPTH: Final = 6  # folders below a configured one
MAX_LOOKED_AT: Final = 4096  # files and folders of one look
_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_MAX_LABEL: Final = 64
MAX_READ_BYTES: Final = 256 * 1024  # of one file; a key or a chain of certificates is far smaller


@dataclass(frozen=True, slots=True)
class CryptoFile:
    """A file, by its name on the system that is looked at, with what was in it."""

    name: str
    path: Path
    state: os.stat_result
    data: bytes


def files_below(
    system: System, places: Sequence[str], gaps: GapRecorder, max_bytes: int = MAX_READ_BYTES
) -> Iterator[CryptoFile]:
    """Every regular file at or below `places`, in order of name; what cannot be looked at goes to `gaps`.

    Links to files are followed, as programs do that use a key; links to folders are not, and in a prepared folder no
    link that leads out of it.
    """
    left = MAX_LOOKED_AT
    waiting = [(system.path(place), 0) for place in sorted(set(places), reverse=True)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        path, depth = waiting.pop()
        left -= 1
        if left < 0:
            gaps.add("files", f"only the first {MAX_LOOKED_AT} were looked at")
            return
        name = _name(system, path)
        try:
            if path.is_dir():
                if depth and path.is_symlink():
                    continue
                if depth > MAX_DEPTH:
                    gaps.add(name, f"more than {MAX_DEPTH} folders deep")
                    continue
                entries = sorted(os.listdir(path), reverse=True)[-left - 1 :]  # noqa: PTH208 - names are enough
                waiting += [(path / entry, depth + 1) for entry in entries]
                continue
            found = _read(system, path, name, gaps, max_bytes)
        except OSError as e:
            gaps.add(name, reason_of(e))
            continue
        if found is not None and (key := (found.state.st_dev, found.state.st_ino)) not in seen:
            seen.add(key)
            yield found


def _name(system: System, path: Path) -> str:
    return str(path) if system.is_live else "/" + str(path.relative_to(system.root))


def _read(system: System, path: Path, name: str, gaps: GapRecorder, max_bytes: int) -> CryptoFile | None:
    if not system.is_live and not path.resolve().is_relative_to(system.root.resolve()):
        return None
    try:
        # Not to wait for whoever writes into a pipe that has the name of a key.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENXIO, errno.ELOOP) or (e.errno == errno.ENOENT and path.is_symlink()):
            return None  # a socket, or a link to nothing
        raise
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            return None
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        if b"-----BEGIN " in data:
            gaps.add(name, f"larger than {max_bytes} bytes, only the first of them were read")
        data = data[:max_bytes]
    return CryptoFile(name, path, state, data)


def pem_blocks(data: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Label, content between the marks, and whether the end mark is there, of each PEM block; in linear time."""
    start, end = data.find(_BEGIN), 0
    while start >= 0:
        following = data.find(_BEGIN, start + len(_BEGIN))
        stop = following if following >= 0 else len(data)
        label_at = start + len(_BEGIN)
        label_end = data.find(b"-----", label_at, min(stop, label_at + _MAX_LABEL))
        if label_end >= 0:
            if 0 <= end < label_end:
                end = data.find(_END, label_end)  # -1 from then on where there is none
            label = data[label_at:label_end]
            is_whole = label_end < end < stop and data.startswith(label + b"-----", end + len(_END))
            yield label.decode("ascii", "replace"), data[label_end + 5 : end if is_whole else stop], is_whole
        start = following
