"""Replaces files as a whole, so that a crash leaves the old or the new one and never a half."""

import os
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 256 * 1024  # of a file of settings

MAX_FILES: Final = 256  # of one folder


def text_of(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """The text of a file of settings, or of its first `limit` bytes; empty when there is no such file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""


def tail_of(path: Path, limit: int) -> str:
    """The last `limit` bytes of a log, from the start of a line; empty when there is no such file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - limit)
            file.seek(start)
            content = file.read(limit)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    return (content if start == 0 else content.partition(b"\n")[2]).decode(errors="replace")


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The files of a folder that match, sorted, at most `MAX_FILES`; none when there is no such folder."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.glob(pattern))[:MAX_FILES] if path.is_file()]


def settings_of(text: str, separator: str | None = "=", comments: str = "#;") -> dict[str, str]:
    """`key = value` of each line, the last one counts; with `separator=None` key and value are apart by spaces."""
    found = {}
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare[0] in comments:
            continue
        parts = bare.split(separator, 1)
        found[parts[0].strip()] = parts[1].strip() if len(parts) > 1 else ""
    return found


def write_whole(path: Path, fresh: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content` so that a reader, or a crash, sees the old or the new file and nothing else.

    Args:
        path: the file.
        fresh: a path in the same folder for the new file until it takes the old one's place.
        content: the new bytes.
        mode: permissions of the new file.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a created, renamed or removed name in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Makes the content of a file that another program wrote survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
