"""Which network interface has which address, asked from the kernel without starting a program."""

import array
import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Mapping
from typing import Final

from device_agent.host.files import text_of
from device_agent.host.system import System

_SIOCGIFCONF: Final = 0x8912
_MAX_BYTES: Final = 64 * 1024  # of the kernel's answer
_NAME_BYTES: Final = 16
_ADDRESS_AT: Final = 20  # bytes into an entry: its name, the family and the port of its address


def addresses(system: System) -> dict[str, str]:
    """Interface by address; IPv4 only of the running machine, because no file tells it."""
    found = _version6(text_of(system.path("/proc/net/if_inet6")))
    if system.is_live:
        with contextlib.suppress(OSError):
            found.update(_version4())
    return found


def interface_of(address: str, known: Mapping[str, str]) -> str:
    """The interface of a socket's address: `*` for all, empty where it cannot be told."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    plain = mapped or parsed
    if plain.is_unspecified:
        return "*"
    return "lo" if plain.is_loopback else known.get(str(plain), "")


def _version6(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 6:
            with contextlib.suppress(ValueError):
                found[str(ipaddress.IPv6Address(bytes.fromhex(fields[0])))] = fields[5]
    return found


def _version4() -> dict[str, str]:
    entry = 40 if struct.calcsize("P") == 8 else 32  # bytes of `struct ifreq`
    names = array.array("B", bytes(_MAX_BYTES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking.fileno(), _SIOCGIFCONF, struct.pack("iP", _MAX_BYTES, names.buffer_info()[0]))
    used = struct.unpack("iP", answer)[0]
    content = names.tobytes()[:used]
    found = {}
    for at in range(0, len(content) - entry + 1, entry):
        name = content[at : at + _NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
        address = content[at + _ADDRESS_AT : at + _ADDRESS_AT + 4]
        found[str(ipaddress.IPv4Address(address))] = name.partition(":")[0]
    return found
