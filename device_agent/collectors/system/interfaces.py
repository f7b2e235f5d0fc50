"""Network interfaces by address, asked from the kernel without running a program."""

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping
from typing import Final

from device_agent.host.files import read_text
from device_agent.host.system import System

_SIOCGIFCONF: Final = 0x8912
_MAX_BYTES: Final = 64 * 1024  # of the kernel's answer
_NAME_BYTES: Final = 16
_ADDRESS_AT: Final = 20  # offset in an entry: after the name, and the family and port of the address


def addresses(system: System) -> dict[str, str]:
    """Returns the interface of each address; IPv4 on the running machine only, no file lists it."""
    interfaces = parse_if_inet6(read_text(system.path("/proc/net/if_inet6")))
    if system.is_live:
        with contextlib.suppress(OSError):
            interfaces.update(_ipv4())
    return interfaces


def interface_of(address: str, interfaces: Mapping[str, str]) -> str:
    """Returns the interface that a socket's address belongs to: `*` for all, empty if unknown."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    effective = mapped or parsed
    if effective.is_unspecified:
        return "*"
    return "lo" if effective.is_loopback else interfaces.get(str(effective), "")


def parse_if_inet6(text: str) -> dict[str, str]:
    """Returns the interface of each address in `/proc/net/if_inet6`."""
    interfaces = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6:
            with contextlib.suppress(ValueError):
                interfaces[str(ipaddress.IPv6Address(bytes.fromhex(fields[0])))] = fields[5]
    return interfaces


def _ipv4() -> dict[str, str]:
    entry = 40 if struct.calcsize("P") == 8 else 32  # bytes of `struct ifreq`
    buffer = array.array("B", bytes(_MAX_BYTES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, struct.pack("iP", _MAX_BYTES, buffer.buffer_info()[0]))
    used = struct.unpack("iP", answer)[0]
    content = buffer.tobytes()[:used]
    interfaces = {}
    for at in range(0, len(content) - entry + 1, entry):
        name = content[at : at + _NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
        address = content[at + _ADDRESS_AT : at + _ADDRESS_AT + 4]
        interfaces[str(ipaddress.IPv4Address(address))] = name.partition(":")[0]
    return interfaces
