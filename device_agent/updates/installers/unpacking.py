"""Unpacks the archive of a file set member by member, through descriptors."""

import os
from pathlib import Path
from typing import Final

from schemas.file_sets import Member, MemberKind, read_members

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(archive: Path, to: Path, max_bytes: int) -> None:
    """Unpacks into an empty folder; nothing is created, opened or linked through a link.

    Raises:
        ArchiveError: the archive breaks a rule of `schemas.file_sets`; some of it may be unpacked.
        OSError: a file cannot be written.
    """
    base = os.open(to, _FOLDER)
    try:
        with archive.open("rb") as file:
            for member in read_members(file, max_bytes):
                _put(base, member)
    finally:
        os.close(base)


def _put(base: int, member: Member) -> None:
    folder = _enter(base, member.parts[:-1])
    name = member.parts[-1]
    try:
        if member.kind is MemberKind.FOLDER:
            os.close(_subfolder(folder, name))
        elif member.kind is MemberKind.SYMLINK:
            os.symlink(member.target, name, dir_fd=folder)
        elif member.kind is MemberKind.HARD_LINK:
            _link(base, member.target, folder, name)
        else:
            _write(folder, name, member)
    finally:
        os.close(folder)


def _enter(base: int, parts: tuple[str, ...]) -> int:
    """Returns a new descriptor of a folder below `base`, which is created where it is missing."""
    folder = os.dup(base)
    for part in parts:
        try:
            below = _subfolder(folder, part)
        finally:
            os.close(folder)
        folder = below
    return folder


def _subfolder(folder: int, name: str) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return os.open(name, _FOLDER, dir_fd=folder)
    made = os.open(name, _FOLDER, dir_fd=folder)
    os.fchmod(made, 0o755)  # whatever the umask
    return made


def _link(base: int, target: str, folder: int, name: str) -> None:
    parts = tuple(target.split("/"))
    source = _enter(base, parts[:-1])
    try:
        os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(source)


def _write(folder: int, name: str, member: Member) -> None:
    with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
        for piece in member.content:
            file.write(piece)
        file.flush()
        os.fchmod(file.fileno(), member.mode)
        os.utime(file.fileno(), (member.modified, member.modified))
