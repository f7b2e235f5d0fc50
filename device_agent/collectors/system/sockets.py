"""Every socket that waits for others, read from /proc: the address, and the program where it is visible."""

import contextlib
import ipaddress
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import ChangeTracker
from device_agent.collectors.system.interfaces import addresses, interface_of
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System

_TABLES: Final = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_WAITING: Final = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; UDP sockets that are bound and not connected
_SOCKET: Final = re.compile(r"^socket:\[(\d+)\]$")
# A UDP socket on an ephemeral port is most often one question on its way out: it counts when it outlives this.
_LINGER_SECONDS: Final = 0.5
_DEFAULT_EPHEMERAL: Final = (32768, 60999)
_PROCESS_LETTERS: Final = 64
_MAX_LINES: Final = 100_000  # of a table; connections are in it as well


@dataclass(frozen=True, slots=True)
class _Waiting:
    proto: str
    address: str
    port: int
    inode: int


def collect(system: System) -> Section:
    """The `sockets` section; process names need root for other users' programs and are empty otherwise."""
    found = _read(system)
    low, high = _ephemeral(system)
    passing = {s for s in found if s.proto == "udp" and low <= s.port <= high}
    if passing and system.is_live:
        time.sleep(_LINGER_SECONDS)
        found -= passing - _read(system)
    owners = _owners(system, {socket.inode for socket in found})
    entries = sorted({(s.proto, s.port, s.address, owners.get(s.inode, "")) for s in found})
    known = addresses(system)
    return {
        "state": "ok",
        "listening": [
            {
                "proto": proto,
                "address": address,
                "port": port,
                "process": process,
                "interface": interface_of(address, known),
            }
            for proto, port, address, process in entries
        ],
    }


def exposed(system: System) -> set[tuple[str, int, str]]:
    """Protocol, port and address of every socket that waits on more than loopback, without lingering on passing ones.

    Raises:
        FactsUnavailableError: the kernel's tables are not there.
    """
    low, high = _ephemeral(system)
    return {
        (s.proto, s.port, s.address)
        for s in _read(system)
        if interface_of(s.address, {}) != "lo" and not (s.proto == "udp" and low <= s.port <= high)
    }


class SocketsCollector:
    """The `sockets` section with what opened and what closed since the scan before."""

    def __init__(self) -> None:
        self._changes = ChangeTracker()
        self.remembered = self._changes.remembered
        self.recall = self._changes.recall

    def __call__(self, system: System) -> Section:
        """As `collect`."""
        section = collect(system)
        opened, closed = self._changes.seen([_line(entry) for entry in section["listening"]])
        return {**section, "opened": opened, "closed": closed}


def _line(entry: Mapping[str, Any]) -> str:
    address = f"[{entry['address']}]" if ":" in entry["address"] else entry["address"]
    return f"{entry['proto']} {address}:{entry['port']} {entry['process']}".rstrip()


def _read(system: System) -> set[_Waiting]:
    found: set[_Waiting] = set()
    is_any_read = False
    for proto, table in _TABLES:
        path = system.path(f"/proc/net/{table}")
        if path.exists():
            is_any_read = True
            with path.open(errors="replace") as lines:
                found |= _parse(proto, lines)
    if not is_any_read:
        raise FactsUnavailableError("/proc/net is not there")
    return found


def _parse(proto: str, lines: Iterable[str]) -> set[_Waiting]:
    found = set()
    for line in islice(lines, 1, _MAX_LINES):
        fields = line.split()
        if len(fields) > 9 and fields[3] == _WAITING[proto]:
            # A damaged line is no socket.
            with contextlib.suppress(ValueError, OverflowError):
                address, _, port = fields[1].partition(":")
                found.add(_Waiting(proto, _address(address), int(port, 16), int(fields[9])))
    return {socket for socket in found if 0 < socket.port <= 0xFFFF}


def _address(text: str) -> str:
    # The kernel writes each 32-bit word in the machine's own byte order.
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _ephemeral(system: System) -> tuple[int, int]:
    try:
        low, high = system.path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _DEFAULT_EPHEMERAL


def _owners(system: System, wanted: set[int]) -> dict[int, str]:
    """Program names by socket; what started first wins, except init, which only holds sockets for others."""
    owners: dict[int, str] = {}
    pids = sorted(int(name) for name in _listed(system.path("/proc")) if name.isdigit())
    for pid in [*(pid for pid in pids if pid != 1), 1]:
        process = system.path(f"/proc/{pid}")
        inodes = {inode for inode in _inodes(process / "fd") if inode in wanted and inode not in owners}
        if inodes:
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text(errors="replace").strip()[:_PROCESS_LETTERS]
                owners.update(dict.fromkeys(inodes, name))
    return owners


def _inodes(folder: Path) -> set[int]:
    inodes = set()
    for name in _listed(folder):
        with contextlib.suppress(OSError):
            match = _SOCKET.match(os.readlink(folder / name))  # noqa: PTH115 - twice as fast, and there are many
            if match is not None:
                inodes.add(int(match[1]))
    return inodes


def _listed(folder: Path) -> list[str]:
    # Processes end while we look, and those of others may be closed to us.
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are enough, and there are many
    except OSError:
        return []
