"""Replaces files as a whole, so that a crash leaves the old or the new one and never a half."""

import os
from pathlib import Path


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
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
