"""Listening sockets (section `sockets`), read from /proc: address, port, and the program where it is visible."""

import contextlib
import ipaddress
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import ChangeTracker, Section, SectionBuilder
from device_agent.collectors.system.interfaces import addresses, interface_of
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System

_TABLES: Final = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_LITE_TABLES: Final = (("udp", "udplite"), ("udp", "udplite6"))  # UDP-Lite is listed as UDP
# TCP_LISTEN; UDP sockets that are bound and not connected
_LISTENING: Final = {"tcp": "0A", "udp": "07"}
_SOCKET: Final = re.compile(r"^socket:\[(\d+)\]$")
# A UDP socket on an ephemeral port mostly belongs to a client request: it counts when the port is bound after this time
# too, be it anew.
_LINGER_SECONDS: Final = 0.5
_DEFAULT_EPHEMERAL: Final = (32768, 60999)
_MAX_PROCESS_NAME: Final = 64
_MAX_LINES: Final = 100_000  # of a table, which also holds the connections


@dataclass(frozen=True, slots=True)
class _ListeningSocket:
    proto: str
    address: str
    port: int
    inode: int

    @property
    def endpoint(self) -> tuple[str, str, int]:
        return self.proto, self.address, self.port


def collect(system: System, changes: ChangeTracker | None = None) -> Section:
    """Collects the `sockets` section, with the changes since the previous scan if there is a tracker.

    Process names of other users' programs need root and are empty without it.
    """
    tables = (*_TABLES, *_LITE_TABLES)
    sockets = _read(system, tables)
    low, high = _ephemeral(system)
    ephemeral = {s for s in sockets if s.proto == "udp" and low <= s.port <= high}
    if ephemeral and system.is_live:
        time.sleep(_LINGER_SECONDS)
        endpoints = {s.endpoint for s in ephemeral}
        sockets = (sockets - ephemeral) | {s for s in _read(system, tables) if s.endpoint in endpoints}
    processes = _process_names(system, {s.inode for s in sockets})
    entries = sorted({(s.proto, s.port, s.address, processes.get(s.inode, "")) for s in sockets})
    interfaces = addresses(system)
    listening = [
        {
            "proto": proto,
            "address": address,
            "port": port,
            "process": process,
            "interface": interface_of(address, interfaces),
        }
        for proto, port, address, process in entries
    ]
    section = SectionBuilder(listening=listening)
    if changes is not None:
        opened, closed = changes.update([_line(entry) for entry in listening])
        section.set(opened=opened, closed=closed)
    return section.build()


def externally_reachable(system: System) -> set[tuple[str, int, str]]:
    """Returns protocol, port and address of every socket that listens on more than loopback; no ephemeral UDP ports.

    Raises:
        FactsUnavailableError: the kernel's socket tables are missing.
    """
    low, high = _ephemeral(system)
    return {
        (s.proto, s.port, s.address)
        for s in _read(system)
        if interface_of(s.address, {}) != "lo" and not (s.proto == "udp" and low <= s.port <= high)
    }


class SocketsCollector:
    """Collects the `sockets` section with the sockets opened and closed since the previous scan."""

    def __init__(self) -> None:
        self._changes = ChangeTracker()
        self.state = self._changes.state
        self.restore = self._changes.restore

    def __call__(self, system: System) -> Section:
        return collect(system, self._changes)


def _line(entry: Mapping[str, Any]) -> str:
    address = f"[{entry['address']}]" if ":" in entry["address"] else entry["address"]
    return f"{entry['proto']} {address}:{entry['port']} {entry['process']}".rstrip()


def _read(system: System, tables: Iterable[tuple[str, str]] = _TABLES) -> set[_ListeningSocket]:
    sockets: set[_ListeningSocket] = set()
    has_table = False
    for proto, table in tables:
        path = system.path(f"/proc/net/{table}")
        if path.exists():
            has_table = True
            with path.open(errors="replace") as lines:
                sockets |= _parse(proto, lines)
    if not has_table:
        raise FactsUnavailableError("/proc/net is missing")
    return sockets


def _parse(proto: str, lines: Iterable[str]) -> set[_ListeningSocket]:
    sockets = set()
    for number, line in enumerate(lines):
        if number >= _MAX_LINES:
            if proto == "tcp":  # the kernel lists the listening sockets first
                break
            raise FactsUnavailableError(f"more than {_MAX_LINES} {proto} sockets")
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING[proto]:
            # Malformed lines are skipped.
            with contextlib.suppress(ValueError, OverflowError):
                address, _, port = fields[1].partition(":")
                sockets.add(_ListeningSocket(proto, _address(address), int(port, 16), int(fields[9])))
    return {socket for socket in sockets if 0 < socket.port <= 0xFFFF}


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


def _process_names(system: System, inodes: set[int]) -> dict[int, str]:
    """Returns process names by socket inode: of the process with the lowest id; init last, it holds others' sockets."""
    names: dict[int, str] = {}
    pids = sorted(int(name) for name in _list_dir(system.path("/proc")) if name.isdigit())
    for pid in [*(pid for pid in pids if pid != 1), 1]:
        process = system.path(f"/proc/{pid}")
        owned = {inode for inode in _inodes(process / "fd") if inode in inodes and inode not in names}
        if owned:
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text(errors="replace").strip()[:_MAX_PROCESS_NAME]
                names.update(dict.fromkeys(owned, name))
    return names


def _inodes(folder: Path) -> set[int]:
    inodes = set()
    for name in _list_dir(folder):
        with contextlib.suppress(OSError):
            match = _SOCKET.match(os.readlink(folder / name))  # noqa: PTH115 - twice as fast, and there are many
            if match is not None:
                inodes.add(int(match[1]))
    return inodes


def _list_dir(folder: Path) -> list[str]:
    # Processes end meanwhile, and those of other users may be unreadable.
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are enough, and there are many
    except OSError:
        return []
