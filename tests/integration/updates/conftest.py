"""A repository, its server, and a device that trusts its first root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, repository


@pytest.fixture
def made(tmp_path: Path) -> Repository:
    return repository(tmp_path / "repository")


@pytest.fixture
def server(made: Repository) -> Iterator[UpdateServer]:
    with UpdateServer(made.served) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, made: Repository, server: UpdateServer) -> Iterator[UpdateDevice]:
    one = UpdateDevice(tmp_path / "device", server.url, made.first_root, device_class="gateway", hardware=["rpi4"])
    yield one
    one.stop()
