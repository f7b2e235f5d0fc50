"""Follows a growing file through rotation, truncation and restarts of the agent, in bounded chunks."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from schemas.safe_files import open_for_reading

MAX_READ_BYTES: Final = 1024 * 1024  # of one chunk
MAX_LINE_BYTES: Final = 256 * 1024  # a longer line is dropped
_DIGEST_BYTES: Final = 256  # before the position
_ROTATED: Final = re.compile(r"[.-]\d")  # what rotation adds to a name: .1, .2.gz, -20261130
_MAX_SIBLINGS: Final = 2000  # files searched for the one that was rotated away


@dataclass(frozen=True, slots=True)
class FilePosition:
    """The inode of a file and the offset of its first unread byte; both 0 before the file existed.

    `digest` is that of the bytes before the offset: other bytes there show that the file was emptied and filled again.
    """

    inode: int
    offset: int
    digest: str = ""


@dataclass(slots=True)
class LogChunk:
    """The complete lines that were read.

    `lines_dropped` counts overlong lines; `is_truncated` means that text was lost to rotation or truncation.
    """

    lines: list[bytes]
    lines_dropped: int = 0
    is_truncated: bool = False
    has_more: bool = False


class LogFollower:
    """Reads a file by its path; a new follower continues from the saved `position` of an earlier one."""

    def __init__(self, path: Path, position: FilePosition | None) -> None:
        """Without a position, reading starts at the current end of the file."""
        self._path = path
        self._file: BinaryIO | None = None
        self._is_dropping = False
        self.position = position

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> LogChunk:
        """Returns the next chunk; empty when nothing was written.

        Raises:
            OSError: the file cannot be read (a file that does not exist yet is no error).
        """
        chunk = LogChunk([])
        if self._file is None and not self._open(chunk):
            return chunk
        self._read_chunk(chunk)
        if not chunk.lines and not chunk.has_more and self._is_replaced():
            # All of the rotated file was read: the next chunk comes from the new file.
            self._end_file(chunk)
            self.close()
            self.position = FilePosition(0, 0)
            if self._open(chunk):
                self._read_chunk(chunk)
        return chunk

    def _open(self, chunk: LogChunk) -> bool:
        position = self.position
        try:
            file = open_for_reading(self._path, buffering=0)
        except FileNotFoundError:
            if position is None:
                self.position = FilePosition(0, 0)  # a file created from now on is read from its start
            return False
        status = os.fstat(file.fileno())
        if position is None:
            position = FilePosition(status.st_ino, status.st_size, _digest_before(file, status.st_size))
        elif position.inode == 0:
            position = FilePosition(status.st_ino, 0)
        elif position.inode != status.st_ino:
            rotated = self._open_rotated(position)
            if rotated is not None:
                file.close()
                file, status = rotated, os.fstat(rotated.fileno())
            else:
                chunk.is_truncated = True
                position = FilePosition(status.st_ino, 0)
        self._file, self.position = file, position
        return True

    def _open_rotated(self, position: FilePosition) -> BinaryIO | None:
        """Opens the file that was being read under its name after rotation; None if it was removed or compressed."""
        try:
            with os.scandir(self._path.parent) as entries:
                for _, entry in zip(range(_MAX_SIBLINGS), entries, strict=False):
                    if entry.inode() == position.inode and entry.is_file(follow_symlinks=False):
                        return open_for_reading(Path(entry.path), buffering=0)
        except OSError:
            return None
        return None

    def _read_chunk(self, chunk: LogChunk) -> None:
        assert self._file is not None
        assert self.position is not None
        position = self.position
        size = os.fstat(self._file.fileno()).st_size
        is_same = position.digest in ("", _digest_before(self._file, position.offset))
        if size < position.offset or not is_same:  # emptied in place; unread text before that is lost
            chunk.is_truncated, self._is_dropping = True, False
            position = FilePosition(position.inode, 0)
        self._file.seek(position.offset)
        data = self._file.read(MAX_READ_BYTES)
        *complete, rest = data.split(b"\n")
        consumed = len(data) - len(rest)
        if self._is_dropping and complete:
            complete, self._is_dropping = complete[1:], False
        elif self._is_dropping:
            consumed = len(data)
        elif len(rest) > MAX_LINE_BYTES:
            consumed, self._is_dropping = len(data), True
            chunk.lines_dropped += 1
        for line in complete:
            if len(line) > MAX_LINE_BYTES:
                chunk.lines_dropped += 1
            else:
                chunk.lines.append(line)
        end = position.offset + consumed
        self.position = FilePosition(position.inode, end, _digest_before(self._file, end))
        chunk.has_more = len(data) == MAX_READ_BYTES

    def _end_file(self, chunk: LogChunk) -> None:
        """Takes a last line without its end; a file that was rotated away after this one was never read."""
        assert self._file is not None
        assert self.position is not None
        self._file.seek(self.position.offset)
        rest = self._file.read(MAX_LINE_BYTES)
        if rest and not self._is_dropping:
            chunk.lines.append(rest)
        self._is_dropping = False
        status = os.fstat(self._file.fileno())
        try:
            known = {status.st_ino, self._path.stat().st_ino}
            with os.scandir(self._path.parent) as entries:
                for _, entry in zip(range(_MAX_SIBLINGS), entries, strict=False):
                    if not entry.name.startswith(self._path.name) or entry.inode() in known:
                        continue
                    if _ROTATED.match(entry.name, len(self._path.name)):
                        other = entry.stat(follow_symlinks=False)
                        is_later = other.st_mtime_ns > status.st_mtime_ns and other.st_size > 0
                        chunk.is_truncated = chunk.is_truncated or is_later
        except OSError:
            chunk.is_truncated = True

    def _is_replaced(self) -> bool:
        assert self.position is not None
        try:
            return self._path.stat().st_ino != self.position.inode
        except FileNotFoundError:
            return False  # in the middle of a rotation


def _digest_before(file: BinaryIO, offset: int) -> str:
    start = max(0, offset - _DIGEST_BYTES)
    return hashlib.sha256(os.pread(file.fileno(), offset - start, start)).hexdigest()[:32] if offset else ""
