"""Which client an address belongs to, where limits hold for each client."""

import ipaddress
from typing import Final

_SITE_BITS: Final = 64  # one host has a whole IPv6 /64 to take addresses from


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Returns an address without its zone, IPv4 also where it is mapped into IPv6; None for another text."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def counted_as(text: str) -> str:
    """Returns what is the same for all addresses of one client: the /64 of IPv6, any other text itself."""
    address = parse_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _SITE_BITS), strict=False))
    return text if address is None else str(address)
