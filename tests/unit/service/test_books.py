"""What another controller changed is loaded, once, and not while this one changes it itself."""

import pytest

from controller.ports.errors import StoreError
from controller.ports.leases import ALL_BUCKETS
from controller.service.books import Books
from tests.support.controller_harness import LogLines
from tests.support.leases import MemoryLeases


class Stored:
    """A version, and how often the books were loaded."""

    def __init__(self) -> None:
        self.version, self.loads, self.fails = 3, 0, False
        self.books = Books(self._read, (self._load,), MemoryLeases(ALL_BUCKETS), LogLines())

    async def _read(self) -> int:
        return self.version

    async def _load(self) -> None:
        if self.fails:
            raise StoreError("away")
        self.loads += 1


async def test_books_are_loaded_when_their_version_changed() -> None:
    stored = Stored()
    for version, loads in ((3, 1), (3, 1), (4, 2), (4, 2)):
        stored.version = version
        await stored.books.refresh()
        assert stored.loads == loads


async def test_what_could_not_be_read_is_read_again() -> None:
    stored = Stored()
    stored.fails = True
    with pytest.raises(StoreError):
        await stored.books.refresh()
    stored.fails = False
    await stored.books.refresh()
    assert stored.loads == 1


async def test_what_changes_during_the_loads_is_loaded_again() -> None:
    stored = Stored()

    async def load() -> None:
        stored.loads += 1
        stored.version = 4

    stored.books = Books(stored._read, (load,), MemoryLeases(ALL_BUCKETS), LogLines())
    await stored.books.refresh()
    await stored.books.refresh()
    await stored.books.refresh()
    assert stored.loads == 2
