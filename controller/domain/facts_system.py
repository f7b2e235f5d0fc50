"""Facts about what runs and what is open: sockets, services, firewall."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from schemas.sections.system import FirewallSection, ServicesSection, SocketsSection

# A fleet repeats few addresses and service names, and each would be taken apart in every report.
_TEXTS_KEPT: Final = 4096  # entries

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "listening_ports": ("list(int)", "sockets", "ports that wait for others, TCP and UDP, on any address"),
    "exposed_ports": ("list(int)", "sockets", "the same without those bound to loopback only"),
    "listening_processes": ("list(string)", "sockets", "names of the processes behind listening sockets"),
    "enabled_services": ("list(string)", "services", "services that start by themselves"),
    "active_services": ("list(string)", "services", "services that run now"),
    "service_names": (
        "list(string)",
        "services",
        "plain names of services that start or run: `telnetd` for `telnetd.service` and `inetd:in.telnetd`",
    ),
    "firewall_backend": ("string", "firewall", "nftables, iptables, ufw, firewalld or none"),
    "firewall_active": ("bool", "firewall", "whether a firewall filters anything"),
    "firewall_default_input": ("string", "firewall", "what happens to a packet no rule speaks of"),
}


@lru_cache(maxsize=_TEXTS_KEPT)
def _is_loopback(text: str) -> bool:
    """Whether a socket there is out of the network's reach; what cannot be read as an address counts as exposed."""
    bare = text.strip("[]").partition("%")[0]
    if bare == "localhost":
        return True
    try:
        address = ip_address(bare)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _sockets(section: SocketsSection) -> dict[str, Any]:
    listening = section.listening
    return {
        "listening_ports": sorted({s.port for s in listening}),
        "exposed_ports": sorted({s.port for s in listening if not _is_loopback(s.address)}),
        "listening_processes": sorted({s.process for s in listening if s.process}),
    }


@lru_cache(maxsize=_TEXTS_KEPT)
def plain_name(unit: str) -> str:
    """What a service is called by people: without inetd's mark, `in.`, instance and kind of unit; lower case."""
    name = unit.lower().removeprefix("xinetd:").removeprefix("inetd:").removeprefix("in.")
    return name.partition("@")[0].partition(".")[0]


def _services(section: ServicesSection) -> dict[str, Any]:
    return {
        "service_names": sorted({plain_name(u.name) for u in section.units if u.enabled or u.active}),
        "enabled_services": [u.name for u in section.units if u.enabled],
        "active_services": [u.name for u in section.units if u.active],
    }


def _firewall(section: FirewallSection) -> dict[str, Any]:
    default = None if section.default_input == "unknown" else section.default_input
    return {
        "firewall_backend": section.backend,
        "firewall_active": section.active,
        "firewall_default_input": default,
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (("sockets", _sockets), ("services", _services), ("firewall", _firewall))
