"""Turns a report's sections into the flat, typed facts that rules speak of; what is not known says why."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from controller.domain.findings import Result
from schemas.posture import (
    FirewallSection,
    OpensslSection,
    OsSection,
    Sections,
    ServicesSection,
    SocketsSection,
    Unavailable,
    UpdatesSection,
)

# Every fact a rule may refer to: its type, the section it comes from ("" for what the controller knows), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "device.id": ("string", "", "the device's id"),
    "device.class": ("string", "", "the class an operator gave the device, or empty"),
    "device.tags": ("list(string)", "", "the tags an operator gave the device"),
    "os_id": ("string", "os", "distribution, as in os-release: debian, fedora, alpine, ..."),
    "os_version": ("string", "os", "version of the distribution, as in os-release"),
    "os_kernel": ("string", "os", "release of the running kernel"),
    "os_machine": ("string", "os", "processor architecture"),
    "updates_manager": ("string", "updates", "package manager"),
    "security_pending": ("int", "updates", "number of packages with a security update waiting"),
    "oldest_security_days": ("int", "updates", "age in days of the oldest waiting security update"),
    "reboot_required": ("bool", "updates", "whether an installed update waits for a reboot"),
    "openssl_version": ("string", "openssl", "upstream version of OpenSSL"),
    "openssl_package_name": ("string", "openssl", "package that OpenSSL comes from"),
    "openssl_package_version": ("string", "openssl", "version of that package; compare with older()"),
    "openssl_package_scheme": ("string", "openssl", "how that version is ordered: deb, rpm, apk"),
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
TYPES: Final = {name: kind for name, (kind, _, _) in CATALOGUE.items()}
# A fleet repeats few addresses and service names, and each would be taken apart in every report.
_TEXTS_KEPT: Final = 4096  # entries
_SECTION_OF: Final = {name: section for name, (_, section, _) in CATALOGUE.items()}


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a fact has no value: `result` is unknown or notapplicable."""

    result: Result
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one device.

    `partial` names list facts of which the device sent only a part: they can show presence, never absence.
    """

    known: Mapping[str, Any]
    missing: Mapping[str, Missing]
    partial: Mapping[str, str]


def _os(section: OsSection) -> dict[str, Any]:
    return {
        "os_id": section.id,
        "os_version": section.version,
        "os_kernel": section.kernel,
        "os_machine": section.machine,
    }


def _updates(section: UpdatesSection) -> dict[str, Any]:
    return {
        "updates_manager": section.manager,
        "security_pending": section.security_pending,
        "oldest_security_days": section.oldest_security_days,
        "reboot_required": section.reboot_required,
    }


def _openssl(section: OpensslSection) -> dict[str, Any]:
    package = section.package
    return {
        "openssl_version": section.version,
        "openssl_package_name": package.name if package else None,
        "openssl_package_version": package.version if package else None,
        "openssl_package_scheme": package.scheme if package else None,
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


_READERS: Final[tuple[tuple[str, Any], ...]] = (
    ("os", _os),
    ("updates", _updates),
    ("openssl", _openssl),
    ("sockets", _sockets),
    ("services", _services),
    ("firewall", _firewall),
)
_FACTS_OF: Final = {
    section: tuple(name for name, owner in _SECTION_OF.items() if owner == section) for section, _ in _READERS
}


def gather(sections: Sections, device_id: str, device_class: str, tags: tuple[str, ...]) -> Facts:
    """The facts of a full report, with a reason for each one that it does not tell."""
    known: dict[str, Any] = {"device.id": device_id, "device.class": device_class, "device.tags": list(tags)}
    missing: dict[str, Missing] = {}
    partial: dict[str, str] = {}
    for name, read in _READERS:
        section = getattr(sections, name)
        if section is None:
            reason = Missing(Result.UNKNOWN, f"{name}: not reported")
            missing.update(dict.fromkeys(_FACTS_OF[name], reason))
        elif isinstance(section, Unavailable):
            reason = Missing(Result(section.state), f"{name}: {section.reason}")
            missing.update(dict.fromkeys(_FACTS_OF[name], reason))
        else:
            for fact, value in read(section).items():
                if value is None:
                    missing[fact] = Missing(Result.UNKNOWN, f"{fact}: not found out by the device")
                else:
                    known[fact] = value
            cut = getattr(section, "truncated", 0)
            # The numbers of `updates` are counted before its list is cut.
            if cut and name != "updates":
                partial.update(dict.fromkeys(_FACTS_OF[name], f"{name}: {cut} more entries were not sent"))
            elif isinstance(section, SocketsSection):
                hidden = sum(1 for socket in section.listening if not socket.process)
                if hidden:
                    partial["listening_processes"] = f"{name}: the process behind {hidden} of them is not visible"
    return Facts(known, missing, partial)
