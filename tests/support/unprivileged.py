"""The rights of an ordinary user, also where tests run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_NOBODY: Final = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Runs its block as nobody; without root, as the user that runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """The same with a temporary folder of that user, which cannot enter pytest's own."""
    with unprivileged(), TemporaryDirectory() as folder:
        yield Path(folder)
