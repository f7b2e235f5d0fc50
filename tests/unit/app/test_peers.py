"""Where other controllers reach this one, and by which key they know each other."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.adapters.http_peers import loopback_mark
from controller.adapters.sql.peer_key import peer_key
from controller.app import peers
from controller.app.peers import announce, peer_access, usable
from controller.ports.errors import SettingsError
from controller.ports.leases import ALL_BUCKETS
from controller.service.settings.settings import Settings
from tests.support.controller_harness import SETTINGS, LogLines, open_harness
from tests.support.leases import MemoryLeases

LISTENING = "http://127.0.0.1:34567"


class _Reached:
    """The part of the adapters that telling the others needs."""

    def __init__(self) -> None:
        self.leases = MemoryLeases(ALL_BUCKETS)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({}, f"{LISTENING}#{loopback_mark()}"),
        ({"controller": {"url": "https://one.example:8480"}}, "https://one.example:8480"),
        ({"api": {"listen": "0.0.0.0:8480", "unsafe_plain_http": True}}, ""),
        ({"api": {"listen": "[::]:8480", "unsafe_plain_http": True}}, ""),
    ],
)
async def test_the_others_are_told_an_address_of_this_host(tables: dict[str, Any], told: str) -> None:
    reached = _Reached()
    await announce(Settings.model_validate({**SETTINGS, **tables}), reached, LISTENING)  # type: ignore[arg-type]
    assert reached.leases.leader_url == told


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://one.example:8480", "https://one.example:8480"),
        ("http://127.0.0.1:8480#here", "http://127.0.0.1:8480"),
        ("http://127.0.0.1:8480#elsewhere", ""),
        ("https://localhost:8480", ""),
        ("http://[::1]:8480", ""),
        ("https://0.0.0.0:8480", ""),
        ("http://one.example:8480", ""),
        ("https://one.example@two.example", ""),
        ("file:///etc", ""),
        ("https://[", ""),
    ],
)
def test_credentials_go_to_the_host_that_announced_it_and_not_in_clear_text(url: str, asked: str) -> None:
    assert usable(url, "here", may_be_plain=False) == asked
    assert usable("http://one.example:8480", "here", may_be_plain=True) == "http://one.example:8480"
    assert usable("http://127.0.0.1:8480#", "", may_be_plain=True) == ""


async def test_a_leader_on_loopback_of_another_host_is_said_once_and_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = LogLines()
    monkeypatch.setattr(peers, "logger_for", lambda _part: logged)
    async with open_harness(tmp_path / "a.db") as harness, contextlib.AsyncExitStack() as stack:
        leases = MemoryLeases(ALL_BUCKETS)
        adapters: Any = SimpleNamespace(leases=leases, store=harness.store, clock=harness.clock)
        services: Any = SimpleNamespace(leader=None)
        access = await peer_access(stack, Settings.model_validate(SETTINGS), adapters, services)
        assert access is not None
        for mark, asked in (("0", ""), ("0", ""), (loopback_mark(), LISTENING)):
            leases.leader_url = f"{LISTENING}#{mark}"
            assert access.leader_url() == asked
        assert [event for event, _ in logged] == ["the leader is not asked"]
        plain = Settings.model_validate({**SETTINGS, "controller": {"url": "http://one.example:8480"}})
        with pytest.raises(SettingsError, match="clear text"):
            await peer_access(stack, plain, adapters, services)


async def test_every_controller_of_a_store_has_the_same_key(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "a.db") as harness:
        first = await peer_key(harness.store)
        assert len(first) == 32
        assert await peer_key(harness.store) == first
    async with open_harness(tmp_path / "b.db") as other:
        assert await peer_key(other.store) != first
