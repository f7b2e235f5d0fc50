"""Ports that a local user offers to the network in ways that the list of sockets might miss."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.collectors.system import sockets
from device_agent.host.system import System


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", port))
    return made


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """A bound UDP socket; its port is an ephemeral one."""
    monkeypatch.setattr(sockets, "_ephemeral", lambda _system: (1, 65_535))
    made = [_bound(0)]
    yield made
    for one in made:
        one.close()


def _is_listed(port: int) -> bool:
    return any((one["port"], one["proto"]) == (port, "udp") for one in sockets.collect(System())["listening"])


def test_a_udp_port_that_is_bound_anew_meanwhile_is_listed(
    held: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding: another inode on the same port counted as a socket that had gone."""
    port = held[0].getsockname()[1]

    def bind_anew(_seconds: float) -> None:
        held.pop().close()
        held.append(_bound(port))

    monkeypatch.setattr(time, "sleep", bind_anew)
    assert _is_listed(port)


def test_a_udp_port_that_is_free_after_a_moment_is_not(
    held: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = held[0].getsockname()[1]
    monkeypatch.setattr(time, "sleep", lambda _seconds: held.pop().close())
    assert not _is_listed(port)


@pytest.mark.parametrize("table", ["udplite", "udplite6"])
def test_udp_lite_is_listed(tmp_path: Path, table: str) -> None:
    """Finding: its tables were not read."""
    folder = tmp_path / "proc/net"
    folder.mkdir(parents=True)
    (folder / "udp").write_text("  sl  local_address\n")
    zeros = "0" * (8 if table == "udplite" else 32)
    (folder / table).write_text(f"   0: {zeros}:11D7 {zeros}:0000 07 0:0 00:0 0 0 0 4711 2 0 0\n")
    (entry,) = sockets.collect(System(tmp_path))["listening"]
    assert (entry["port"], entry["proto"]) == (4567, "udp")
