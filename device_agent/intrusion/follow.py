"""Follows a growing file through rotation, truncation and restarts of the agent, a bounded piece at a time."""

import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

MAX_READ_BYTES: Final = 1024 * 1024  # of one piece
MAX_LINE_BYTES: Final = 256 * 1024  # a longer line is skipped
_MAX_SIBLINGS: Final = 2000  # files of a folder looked through for the one that was rotated away


@dataclass(frozen=True, slots=True)
class FilePosition:
    """How far a file was read: the file's inode, and the first byte that was not read; both 0 before there was one."""

    inode: int
    offset: int


@dataclass(slots=True)
class LogChunk:
    """What was read: whole lines, and how many were lost because they were too long or rotated away unread."""

    lines: list[bytes]
    skipped: int = 0
    has_gap: bool = False
    has_more: bool = False


class LogFollower:
    """One file by its path; `place` is what to remember, a new Follower goes on from there."""

    def __init__(self, path: Path, place: FilePosition | None) -> None:
        """Without a place the file is followed from its end as it is now: what is older is no news."""
        self._path = path
        self._file: FileIO | None = None
        self._is_skipping = False
        self.place = place

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> LogChunk:
        """The next piece; empty when nothing was written.

        Raises:
            OSError: the file cannot be read (a file that is not there yet is no error).
        """
        piece = LogChunk([])
        if self._file is None and not self._open(piece):
            return piece
        self._take(piece)
        if not piece.lines and not piece.has_more and self._is_replaced():
            # All of the old one was read: the next piece comes from the new one.
            self.close()
            self.place = FilePosition(0, 0)
            if self._open(piece):
                self._take(piece)
        return piece

    def _open(self, piece: LogChunk) -> bool:
        place = self.place
        try:
            file = self._path.open("rb", buffering=0)
        except FileNotFoundError:
            if place is None:
                self.place = FilePosition(0, 0)  # whatever appears from now on is news
            return False
        status = os.fstat(file.fileno())
        if place is None:
            place = FilePosition(status.st_ino, status.st_size)
        elif place.inode == 0:
            place = FilePosition(status.st_ino, 0)
        elif place.inode != status.st_ino:
            rotated = self._rotated(place)
            if rotated is not None:
                file.close()
                file, status = rotated, os.fstat(rotated.fileno())
            else:
                piece.has_gap = True
                place = FilePosition(status.st_ino, 0)
        self._file, self.place = file, place
        return True

    def _rotated(self, place: FilePosition) -> FileIO | None:
        """The file we were reading, under the name that rotation gave it; None when it is gone, or packed."""
        try:
            with os.scandir(self._path.parent) as entries:
                for _, entry in zip(range(_MAX_SIBLINGS), entries, strict=False):
                    if entry.inode() == place.inode and entry.is_file(follow_symlinks=False):
                        return Path(entry.path).open("rb", buffering=0)
        except OSError:
            return None
        return None

    def _take(self, piece: LogChunk) -> None:
        assert self._file is not None
        assert self.place is not None
        place = self.place
        size = os.fstat(self._file.fileno()).st_size
        if size < place.offset:  # emptied in place; what was written between our last look and that is lost
            piece.has_gap = True
            place = FilePosition(place.inode, 0)
        self._file.seek(place.offset)
        data = self._file.read(MAX_READ_BYTES)
        *whole, rest = data.split(b"\n")
        taken = len(data) - len(rest)
        if self._is_skipping and whole:
            whole, self._is_skipping = whole[1:], False
        elif self._is_skipping:
            taken = len(data)
        elif len(rest) > MAX_LINE_BYTES:
            taken, self._is_skipping = len(data), True
            piece.skipped += 1
        for line in whole:
            if len(line) > MAX_LINE_BYTES:
                piece.skipped += 1
            else:
                piece.lines.append(line)
        self.place = FilePosition(place.inode, place.offset + taken)
        piece.has_more = len(data) == MAX_READ_BYTES

    def _is_replaced(self) -> bool:
        assert self.place is not None
        try:
            return self._path.stat().st_ino != self.place.inode
        except FileNotFoundError:
            return False  # between the two steps of a rotation
