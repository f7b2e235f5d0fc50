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
_RTF_UP: Final = 0x1
_RTF_REJECT: Final = 0x200
# A tunnel that takes all traffic has routes to the halves of the addresses, or to all public addresses of IPv6.
_MAX_DEFAULT_BITS: Final = {"ip": 1, "ip6": 3}
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


def interface_names(system: System) -> tuple[str, ...]:
    """Returns the names of all network interfaces but loopback."""
    lines = read_text(system.path("/proc/net/dev")).splitlines()
    names = (line.partition(":")[0].strip() for line in lines if ":" in line)
    return tuple(sorted(name for name in names if name and name != "lo"))


def default_routes(system: System) -> dict[str, tuple[str, ...]]:
    """Returns the interfaces of the routes to everywhere, by family (`ip`, `ip6`)."""
    found: dict[str, set[str]] = {"ip": set(), "ip6": set()}
    for line in read_text(system.path("/proc/net/route")).splitlines()[1:]:
        fields = line.split()
        with contextlib.suppress(ValueError):
            if len(fields) > 7 and _is_usable(fields[3]) and int(fields[7], 16).bit_count() <= _MAX_DEFAULT_BITS["ip"]:
                found["ip"].add(fields[0])
    for line in read_text(system.path("/proc/net/ipv6_route")).splitlines():
        fields = line.split()
        with contextlib.suppress(ValueError):
            if len(fields) > 9 and _is_usable(fields[8]) and int(fields[1], 16) <= _MAX_DEFAULT_BITS["ip6"]:
                found["ip6"].add(fields[9])
    return {family: tuple(sorted(names - {"lo", "*"})) for family, names in found.items()}


def _is_usable(flags: str) -> bool:
    return bool(int(flags, 16) & _RTF_UP) and not int(flags, 16) & _RTF_REJECT
