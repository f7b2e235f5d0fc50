"""What every end-to-end test runs against."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certs import Certs
from tests.support.standin import StandInProcess


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """A throw-away authority."""
    return Certs(tmp_path / "certs")


@pytest.fixture
def emqx(certs: Certs) -> Iterator[StandInProcess]:
    """A stand-in of three nodes with TLS listeners."""
    with StandInProcess(nodes=3, certs=certs) as process:
        yield process
