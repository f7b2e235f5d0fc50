"""Bounded reading of files, atomic durable writes, and pydantic models as files of the state folder."""

import contextlib
import errno
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from device_agent.errors import FactsUnavailableError, JournalError
from device_agent.host.image_path import ImagePath
from schemas.safe_files import NotRegularError, open_for_reading, save

MAX_FILE_BYTES: Final = 256 * 1024  # of a configuration file
MAX_FILES: Final = 256  # of one folder
_Model = TypeVar("_Model", bound=BaseModel)


def read_text(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """Returns a file as text; empty when there is no such file, or something else.

    Raises:
        FactsUnavailableError: it has more than `limit` bytes.
        OSError: it exists and cannot be read.
    """
    text, is_whole = read_beginning(path, limit)
    if not is_whole:
        raise FactsUnavailableError(f"{path}: larger than {limit} bytes")
    return text


def read_beginning(path: Path, limit: int = MAX_FILE_BYTES) -> tuple[str, bool]:
    """Returns the first `limit` bytes of a file as text, and whether that is all; empty when there is no such file.

    Raises:
        OSError: it exists and cannot be read.
    """
    try:
        with open_for_reading(path) as file:
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError, NotRegularError):
        return "", True
    return content[:limit].decode(errors="replace"), len(content) <= limit


def read_tail(path: Path, limit: int) -> str:
    """Returns the last `limit` bytes of a log, from the start of a line; empty when there is no such file.

    Raises:
        OSError: it exists and cannot be read.
    """
    try:
        with open_for_reading(path) as file:
            size = file.seek(0, 2)
            start = max(0, size - limit)
            file.seek(start)
            content = file.read(limit)
    except (FileNotFoundError, NotADirectoryError, NotRegularError):
        return ""
    return (content if start == 0 else content.partition(b"\n")[2]).decode(errors="replace")


def read_lines(path: Path, limit: int, longest: int) -> Iterator[str]:
    """Yields the lines of a large file, without reading more than `limit` bytes or a line of more than `longest`.

    Raises:
        FactsUnavailableError: it is larger, or has such a line.
        OSError: it is missing or cannot be read.
    """
    with open_for_reading(path) as file:
        while line := file.readline(longest + 1):
            limit -= len(line)
            if limit < 0 or len(line) > longest:
                raise FactsUnavailableError(f"{path}: too large, or a line of more than {longest} bytes")
            yield line.decode(errors="replace")


def list_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Returns the files of a folder whose names match, sorted; none when there is no such folder.

    Raises:
        FactsUnavailableError: more than `MAX_FILES` names match.
        OSError: the folder exists and cannot be listed.
    """
    return [path for name in list_names(folder, MAX_FILES, pattern) if (path := folder / name).is_file()]


def list_names(folder: Path, limit: int, pattern: str = "*") -> list[str]:
    """Returns the names in a folder that match, sorted; none when there is no such folder.

    Raises:
        FactsUnavailableError: more than `limit` names match.
        OSError: the folder exists and cannot be listed.
    """
    names = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in names_in(folder):
            if fnmatch.fnmatchcase(name, pattern):
                names.append(name)
            if len(names) > limit:
                raise FactsUnavailableError(f"{folder}: more than {limit} files")
    return sorted(names)


def names_in(folder: Path) -> Iterator[str]:
    """Yields the names in a folder, one by one (OSError: it cannot be listed)."""
    if isinstance(folder, ImagePath):
        yield from (path.name for path in folder.iterdir())
        return
    with os.scandir(folder) as entries:  # unlike iterdir, without a list of them all
        yield from (entry.name for entry in entries)


def parse_key_values(text: str, separator: str | None = "=", comments: str = "#;") -> dict[str, str]:
    """Parses lines of `key = value`; the last one wins. With `separator=None` white space separates key and value."""
    values = {}
    for line in text.splitlines():
        content = line.strip()
        if not content or content[0] in comments:
            continue
        parts = content.split(separator, 1)
        values[parts[0].strip()] = parts[1].strip() if len(parts) > 1 else ""
    return values


def write_whole(
    path: Path, temporary: Path, content: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Replaces a file atomically: readers, and a crash, leave either the old or the new file.

    Args:
        path: the file.
        temporary: a path in the same folder for the new file until it replaces the old one.
        content: the new bytes.
        mode: permissions of the new file; set-uid, set-gid and sticky bits are left out.
        owner: user and group of the new file, of the agent if None.

    Raises:
        OSError: the disk refuses, or the path has a link that belongs to another user.
    """
    save(path, temporary.name, lambda file: file.write(content), mode, owner=owner)


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


def read_model(path: Path, model: type[_Model], max_bytes: int, consequence: str = "") -> _Model | None:
    """Returns the content of a file; None when there is no such file.

    `consequence` says in the error what ignoring a damaged file would mean.

    Raises:
        JournalError: it is too large, cannot be read, or is damaged.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise JournalError(f"{path} is larger than {max_bytes} bytes: not written by this agent")
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as e:
        raise JournalError(f"{path}: {e.strerror}") from e
    except ValidationError as e:
        reason = f"; {consequence}" if consequence else ""
        raise JournalError(f"{path} is damaged{reason}: look at it, then move it away") from e


def is_full(error: BaseException) -> bool:
    """Whether the error, or its cause, is a full disk or quota."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}


def write_model(path: Path, content: BaseModel) -> None:
    """Replaces a file; the content is on the disk when this returns (JournalError)."""
    try:
        write_whole(path, path.with_name(f".{path.name}.new"), content.model_dump_json().encode())
    except OSError as e:
        raise JournalError(f"{path}: {e.strerror}") from e
