"""The archives of file sets: what they may contain, and the one reader of them.

The controller reads an archive before it is signed, the device reads it to unpack it, and both refuse the same ones.
The rules are Cordon's own: the extraction filters of `tarfile` are absent before Python 3.11.4, and files left their
folder despite them before 3.11.13, 3.12.11 and 3.13.4.

A member is a folder, a file, a symbolic link, or a hard link to an earlier file. Its name is relative, has no `..`,
occurs once, and no part of it is a link. The target of a symbolic link climbs with leading `..` only, and never above
the set: folders above a member are no links, so that each `..` is one folder of the set, wherever the rest leads.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import IO, Final, Self

ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MAX_MEMBERS: Final = 20_000  # the folders that names imply included
MAX_DEPTH: Final = 64  # parts of a name
MAX_PART_BYTES: Final = 255
MAX_PATH_BYTES: Final = 1024  # of a name, and of the target of a link
MAX_OVERHEAD_BYTES: Final = MAX_MEMBERS * 4096  # headers and padding of the uncompressed archive
MAX_HEADER_BYTES: Final = 32 * 1024  # of one extension header: long names, times, extended attributes
MAX_HEADERS: Final = 8  # extension headers before one member
_MAX_TIME: Final = 2**33  # seconds since 1970
_CHUNK: Final = 1024 * 1024  # bytes
# What `tarfile` raises where it misreads numbers, for maps of sparse files and for thousands of nested headers, too.
_MISREAD: Final = (ValueError, ArithmeticError, LookupError, RecursionError)
_DAMAGED: Final = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, *_MISREAD)
_EXTENSIONS: Final = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_MAGIC: Final = 6  # bytes that tell the compression


class ArchiveError(ValueError):
    """An archive that is damaged or contains what no file set may contain."""


class MemberKind(StrEnum):
    """The kind of a member."""

    FOLDER = "folder"
    FILE = "file"
    SYMLINK = "symlink"
    HARD_LINK = "hard_link"


@dataclass(frozen=True, slots=True)
class Member:
    """One member that passed all rules; the folders above it exist or are to be created.

    `target` is the text of a symbolic link, and the path below the set of a hard link. `mode` has permission bits only,
    `modified` is in seconds since 1970. `content` are the `size` bytes of a file in pieces, to be read before the next
    member is asked for (ArchiveError when the archive ends early).
    """

    parts: tuple[str, ...]
    kind: MemberKind
    mode: int = 0o755
    modified: float = 0.0
    size: int = 0
    target: str = ""
    content: Iterable[bytes] = ()


def read_members(archive: IO[bytes], max_bytes: int) -> Iterator[Member]:
    """Yields the members of an archive whose files have at most `max_bytes` together.

    Reads forwards only and never decompresses more than `max_bytes` and the headers need.

    Raises:
        ArchiveError: damaged, too large, or with a member that breaks a rule.
        OSError: the file cannot be read.
    """
    seen: dict[tuple[str, ...], MemberKind] = {}
    total = 0
    with (
        _damage_refused("not a whole archive"),
        tarfile.open(
            fileobj=_Uncompressed(archive, max_bytes + MAX_OVERHEAD_BYTES), mode="r|", tarinfo=_bounded_headers()
        ) as members,
    ):
        while (info := members.next()) is not None:
            # `tarfile` keeps every member, with a copy of all its headers.
            members.members.clear()  # type: ignore[attr-defined]  # absent from the stubs
            member = _checked(info, seen)
            total += member.size
            if total > max_bytes:
                raise ArchiveError(f"its files have more than {max_bytes} bytes")
            if not member.parts:
                continue
            if member.kind is MemberKind.FILE:
                member = replace(member, content=_content(members, info))
            yield member


@contextmanager
def _damage_refused(what: str) -> Iterator[None]:
    """Turns what the readers of archives raise for damaged ones into ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except OSError as e:
        if e.errno is not None:
            raise
        raise ArchiveError(f"{what}: {e}") from e  # gzip's and bz2's; the system's have a number
    except _DAMAGED as e:
        raise ArchiveError(f"{what}: {e}") from e


def _bounded_headers() -> type[tarfile.TarInfo]:
    """Returns the headers of one archive, which refuse what is too large before `tarfile` reads it into memory."""

    class Bounded(tarfile.TarInfo):
        in_a_row = 0

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if info.type == tarfile.GNUTYPE_SPARSE:
                raise ArchiveError(f"{info.name!r}: a sparse file")
            Bounded.in_a_row = Bounded.in_a_row + 1 if info.type in _EXTENSIONS else 0
            if Bounded.in_a_row > MAX_HEADERS or (Bounded.in_a_row and not 0 <= info.size <= MAX_HEADER_BYTES):
                raise ArchiveError(f"an extension header of more than {MAX_HEADER_BYTES} bytes, or too many of them")
            return info

        def _proc_gnusparse_10(self, *_arguments: object) -> None:
            """`tarfile` calls this to read the map of a sparse file from its content, however long that is."""
            raise ArchiveError(f"{self.name!r}: a sparse file")

    return Bounded


class _Uncompressed(io.BufferedIOBase):
    """Reads at most `limit` bytes of a tar file, decompressed where its first bytes say so."""

    def __init__(self, archive: IO[bytes], limit: int) -> None:
        magic = archive.read(_MAGIC)
        archive.seek(0)
        self._read: Callable[[int], bytes] = archive.read
        if magic.startswith(b"\x1f\x8b"):
            self._read = gzip.GzipFile(fileobj=archive).read
        elif magic.startswith(b"BZh"):
            self._read = bz2.BZ2File(archive).read
        elif magic == b"\xfd7zXZ\0":
            self._read = lzma.LZMAFile(archive).read  # noqa: SIM115 - the caller closes the file below it
        self._left = limit

    def read(self, size: int | None = -1, /) -> bytes:
        most = self._left + 1
        content = self._read(most if size is None or size < 0 else min(size, most))
        self._left -= len(content)
        if self._left < 0:
            raise ArchiveError("unpacks to more than its members need")
        return content


def _checked(info: tarfile.TarInfo, seen: dict[tuple[str, ...], MemberKind]) -> Member:
    """Returns a member that keeps the rules, and enters it and the folders above it in `seen`."""
    parts = _parts(info.name)
    if parts is None:
        raise ArchiveError(f"{info.name!r}: not a name below the set")
    kind = _kind(info)
    for end in range(1, len(parts)):
        if seen.setdefault(parts[:end], MemberKind.FOLDER) is not MemberKind.FOLDER:
            raise ArchiveError(f"{info.name!r}: a folder above it is a link or a file")
    if kind is not MemberKind.FOLDER and (not parts or parts in seen):
        raise ArchiveError(f"{info.name!r}: a second member of that name")
    if seen.setdefault(parts, kind) is not kind:
        raise ArchiveError(f"{info.name!r}: a second member of that name")
    if len(seen) > MAX_MEMBERS:
        raise ArchiveError(f"more than {MAX_MEMBERS} members")
    if kind is MemberKind.FOLDER:
        return Member(parts, kind)
    if kind is MemberKind.SYMLINK:
        return Member(parts, kind, target=_link_text(info, len(parts) - 1))
    if kind is MemberKind.HARD_LINK:
        target = _parts(info.linkname)
        if not target or seen.get(target) is not MemberKind.FILE:
            raise ArchiveError(f"{info.name!r}: a hard link to something else than an earlier file")
        return Member(parts, kind, target="/".join(target))
    modified = float(info.mtime) if 0 <= info.mtime < _MAX_TIME else 0.0
    return Member(parts, kind, _mode(info.mode), modified, info.size)


def _kind(info: tarfile.TarInfo) -> MemberKind:
    # Before `isreg`: a sparse file counts as regular there, and its size is not what it takes on the disk.
    if info.issparse() or info.size < 0:
        raise ArchiveError(f"{info.name!r}: a sparse file or a negative size")
    if info.type in {tarfile.REGTYPE, tarfile.AREGTYPE}:
        return MemberKind.FILE
    if info.isdir():
        return MemberKind.FOLDER
    if info.issym():
        return MemberKind.SYMLINK
    if info.islnk():
        return MemberKind.HARD_LINK
    raise ArchiveError(f"{info.name!r}: neither folder, file nor link")


def _mode(mode: int) -> int:
    """Returns the permissions of a file: the owner reads and writes, others write never, nobody runs data."""
    allowed = mode & 0o755 | 0o600
    return allowed if mode & 0o100 else allowed & 0o666


def _parts(name: str) -> tuple[str, ...] | None:
    """Returns the parts of a name below the set, none for the set itself; None when it is no such name."""
    if name.startswith("/") or not _is_text(name):
        return None
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    too_long = len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART_BYTES for part in parts)
    return None if too_long or ".." in parts else parts


def _is_text(name: str) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    return 0 < size <= MAX_PATH_BYTES and "\0" not in name


def _link_text(info: tarfile.TarInfo, depth: int) -> str:
    """Returns the target, without empty parts, of a symbolic link in a folder `depth` folders below the set."""
    text = info.linkname
    parts = [part for part in text.split("/") if part not in {"", "."}]
    climbs = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if text.startswith("/") or not _is_text(text) or climbs > depth or ".." in parts[climbs:]:
        raise ArchiveError(f"{info.name!r}: a link that leaves the set, or climbs after it went down")
    return "/".join(parts) or "."


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(info)
    left = info.size
    with _damage_refused(f"{info.name!r}: not whole"):
        while file is not None and left and (piece := file.read(min(left, _CHUNK))):
            left -= len(piece)
            yield piece
    if left:
        raise ArchiveError(f"{info.name!r}: ends early")
