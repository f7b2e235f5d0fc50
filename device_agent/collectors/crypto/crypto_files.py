"""Finds and reads the files below the folders of keys and certificates, bounded for folders that others may write."""

import codecs
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.reading import GapRecorder, error_reason
from device_agent.host.system import System
from schemas.safe_files import NotRegularError, open_for_reading

MAX_DEPTH: Final = 6  # folders below a configured one
MAX_ENTRIES: Final = 4096  # files and folders of one scan
_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_MAX_LABEL: Final = 64
MAX_READ_BYTES: Final = 256 * 1024  # of one file; a key or a chain of certificates is far smaller


@dataclass(frozen=True, slots=True)
class CryptoFile:
    """A file with its content; `name` is its path on the scanned system."""

    name: str
    path: Path
    state: os.stat_result
    data: bytes


def files_below(
    system: System, roots: Sequence[str], gaps: GapRecorder, max_bytes: int = MAX_READ_BYTES
) -> Iterator[CryptoFile]:
    """Yields every regular file at or below `roots`, once and sorted by name; failures are added to `gaps`.

    Symbolic links to files are followed, as the programs that use a key do. Links to folders are not, nor any link
    that leads out of a prepared root.
    """
    left = MAX_ENTRIES
    pending = [(system.path(root), 0) for root in sorted(set(roots), reverse=True)]
    inodes: set[tuple[int, int]] = set()
    while pending:
        path, depth = pending.pop()
        left -= 1
        if left < 0:
            gaps.add(f"only the first {MAX_ENTRIES} files were read")
            return
        name = _name(system, path)
        try:
            if path.is_dir():
                if depth and path.is_symlink():
                    continue
                if depth > MAX_DEPTH:
                    gaps.add(f"more than {MAX_DEPTH} folders deep", name)
                    continue
                entries = sorted((entry.name for entry in path.iterdir()), reverse=True)[-left - 1 :]
                pending += [(path / entry, depth + 1) for entry in entries]
                continue
            file = _read(system, path, name, gaps, max_bytes)
        except OSError as e:
            gaps.add(error_reason(e), name)
            continue
        if file is not None and (inode := (file.state.st_dev, file.state.st_ino)) not in inodes:
            inodes.add(inode)
            yield file


def _name(system: System, path: Path) -> str:
    return str(path) if system.is_live else "/" + str(path.relative_to(system.root))


def _read(system: System, path: Path, name: str, gaps: GapRecorder, max_bytes: int) -> CryptoFile | None:
    if not system.is_live and not path.resolve().is_relative_to(system.root.resolve()):
        return None
    try:
        opened = open_for_reading(path)
    except NotRegularError:
        return None
    except OSError as e:
        if e.errno == errno.ELOOP or (e.errno == errno.ENOENT and path.is_symlink()):
            return None  # a dangling link
        raise
    with opened as file:
        state = os.fstat(file.fileno())
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        if b"-----BEGIN " in data:
            gaps.add(f"larger than {max_bytes} bytes, only the first were read", name)
        data = data[:max_bytes]
    return CryptoFile(name, path, state, data)


def utf8_of(data: bytes) -> bytes:
    """Returns a text without its byte order mark, and UTF-16 as UTF-8; other bytes as they are."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode(errors="replace")
    for encoding in ("utf-16-le", "utf-16-be"):
        at = data.find(_BEGIN.decode().encode(encoding))
        if at >= 0:
            return data[at % 2 :].decode(encoding, "replace").encode(errors="replace")
    return data.removeprefix(codecs.BOM_UTF8)


def pem_blocks(data: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Yields label, content and whether the end mark is present of each PEM block; takes linear time."""
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
            is_complete = label_end < end < stop and data.startswith(label + b"-----", end + len(_END))
            yield label.decode("ascii", "replace"), data[label_end + 5 : end if is_complete else stop], is_complete
        start = following
