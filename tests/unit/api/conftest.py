"""One API for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.api import api as open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API over an empty store."""
    async with open_api(tmp_path / "cordon.db") as one:
        yield one
