"""Doing something as an ordinary user, also where tests run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NOBODY: Final = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    """What is done inside has the rights of nobody; without root it has those of whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
