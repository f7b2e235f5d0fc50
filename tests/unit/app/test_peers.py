"""Where other controllers reach this one, and by which key they know each other."""

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.sql.peer_key import peer_key
from controller.app.peers import announce
from controller.ports.leases import ALL_BUCKETS
from controller.service.settings.settings import Settings
from tests.support.controller_harness import SETTINGS, open_harness
from tests.support.leases import MemoryLeases

LISTENING = "http://127.0.0.1:34567"


class _Reached:
    """The part of the adapters that telling the others needs."""

    def __init__(self) -> None:
        self.leases = MemoryLeases(ALL_BUCKETS)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({}, LISTENING),
        ({"controller": {"url": "https://one.example:8480"}}, "https://one.example:8480"),
        ({"api": {"listen": "0.0.0.0:8480", "unsafe_plain_http": True}}, ""),
        ({"api": {"listen": "[::]:8480", "unsafe_plain_http": True}}, ""),
    ],
)
async def test_the_others_are_told_an_address_of_this_host(tables: dict[str, Any], told: str) -> None:
    reached = _Reached()
    await announce(Settings.model_validate({**SETTINGS, **tables}), reached, LISTENING)  # type: ignore[arg-type]
    assert reached.leases.leader_url == told


async def test_every_controller_of_a_store_has_the_same_key(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "a.db") as harness:
        first = await peer_key(harness.store)
        assert len(first) == 32
        assert await peer_key(harness.store) == first
    async with open_harness(tmp_path / "b.db") as other:
        assert await peer_key(other.store) != first
