"""Where logs go: remote targets, and which of them are the device itself."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from device_agent.collectors.system.interfaces import addresses
from device_agent.host.files import read_text
from device_agent.host.system import System

_HOST: Final = re.compile(r"[A-Za-z0-9._%-]{1,255}|\[?[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]?")


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A machine that receives logs."""

    protocol: str
    host: str
    port: str

    def __str__(self) -> str:
        host = self.host.strip("[]")
        return f"{self.protocol} {f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(slots=True)
class LogOutputs:
    """What a log daemon writes to: targets, and paths of files; templates make the names of dynamic ones."""

    targets: set[LogTarget] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    has_dynamic_files: bool = False


def is_host(text: str) -> bool:
    """Whether a text is a name or an address, and no macro or variable."""
    return _HOST.fullmatch(text) is not None


def remote_targets(system: System, targets: Iterable[LogTarget]) -> list[str]:
    """Returns the targets that are other machines, sorted.

    Raises:
        OSError: /etc/hosts or /etc/hostname cannot be read.
        FactsUnavailableError: one is too large.
    """
    found = set(targets)
    if not found:
        return []
    names, own = _own_names(system), set(addresses(system))
    return sorted(str(target) for target in found if not _is_own(target.host, names, own))


def _is_own(host: str, names: set[str], own: set[str]) -> bool:
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    address = _address(name)
    if address is None:
        return not name or name in names or name.endswith(".localhost")
    return address.is_loopback or address.is_unspecified or str(address) in own


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))  # also `127.1` and `0x7f000001`, as the resolver
        except (OSError, UnicodeError):
            return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _own_names(system: System) -> set[str]:
    """Returns the names of this device: its host name, and those that /etc/hosts gives to its own addresses."""
    hostname = read_text(system.path("/etc/hostname")).strip().lower()
    names = {"localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"}
    names |= {hostname, hostname.partition(".")[0]} if hostname else set()
    own = set(addresses(system))
    for line in read_text(system.path("/etc/hosts")).splitlines():
        words = line.partition("#")[0].lower().split()
        address = _address(words[0]) if len(words) > 1 else None
        if address is not None and (address.is_loopback or address.is_unspecified or str(address) in own):
            names.update(words[1:])
    return names
