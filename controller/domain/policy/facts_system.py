"""Facts about what runs, what is open and what guards it: sockets, services, firewall, disk, mac, logging."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from schemas.sections.system import (
    DiskSection,
    FirewallSection,
    LoggingSection,
    MacSection,
    ServicesSection,
    SocketsSection,
)

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
    "opened_sockets": (
        "list(string)",
        "sockets",
        "what the last change opened, told for a day: `tcp 0.0.0.0:23 telnetd`",
    ),
    "closed_sockets": ("list(string)", "sockets", "what the last change closed, told for a day"),
    "listening_interfaces": ("list(string)", "sockets", "interfaces with a listening socket; `*` for all of them"),
    "service_init": ("string", "services", "what starts services: systemd, openrc, procd, sysv"),
    "insecure_services": (
        "list(string)",
        "services",
        "plain names of services that start or run and are known to be insecure: telnet, rsh, tftp, ...",
    ),
    "appeared_services": ("list(string)", "services", "services that the last change brought, told for a day"),
    "vanished_services": ("list(string)", "services", "services that the last change took away, told for a day"),
    "firewall_default_forward": ("string", "firewall", "the same for packets to other machines"),
    "firewall_default_output": ("string", "firewall", "the same for packets of its own"),
    "firewall_uncovered": ("list(string)", "firewall", "exposed sockets that no rule decides about: `tcp/22`"),
    "root_encrypted": ("bool", "disk", "whether the root file system lies on an encrypted device"),
    "data_encrypted": ("bool", "disk", "whether every other file system that is written to does"),
    "unencrypted_mounts": ("list(string)", "disk", "where file systems are mounted that lie open"),
    "swap_encryption": ("string", "disk", "none, encrypted or plain"),
    "fscrypt_mounts": ("list(string)", "disk", "file systems that are set up for fscrypt"),
    "mac_system": ("string", "mac", "selinux, apparmor or none"),
    "mac_mode": ("string", "mac", "enforcing, permissive or disabled"),
    "mac_configured": ("string", "mac", "the mode after the next start"),
    "mac_policy": ("string", "mac", "name of the policy, such as targeted"),
    "mac_complaining_profiles": ("int", "mac", "AppArmor profiles that only complain; 0 for SELinux"),
    "mac_denials": ("int", "mac", "refusals of the last day, rounded down to 0, 1, 10, 100, ..."),
    "journald_storage": ("string", "logging", "absent, none, volatile or persistent"),
    "syslog_daemon": ("string", "logging", "rsyslog, syslog-ng, logd, busybox or empty"),
    "syslog_running": ("bool", "logging", "whether it runs; false without one"),
    "log_targets": ("list(string)", "logging", "other machines that logs are sent to: `tls logs.example:6514`"),
    "audit_state": ("string", "logging", "absent, stopped or running"),
    "audit_rules": ("int", "logging", "number of auditd's rules; 0 without it"),
    "log_rotation": ("string", "logging", "what clears logs away: logrotate, journald, ... or empty"),
}
WHOLE: Final = frozenset(name for name, (kind, _, _) in CATALOGUE.items() if not kind.startswith("list"))
"""Facts that hold even where a list of their section was cut."""
FIELDS: Final = {
    "firewall_uncovered": "uncovered",
    "root_encrypted": "root_encrypted",
    "mac_mode": "mode",
    "mac_configured": "configured",
    "mac_complaining_profiles": "enforced_profiles",
    "mac_denials": "denials",
    "journald_storage": "journald",
    "audit_rules": "audit_rules",
}
"""The field of a section that a fact is, where its name is another; by it the device names it in its gaps."""

# In clear text, without asking who it is, or trusting whoever claims an address.
_INSECURE: Final = frozenset(
    {
        "telnet", "telnetd", "rsh", "rshd", "rlogin", "rlogind", "rexec", "rexecd", "shell", "login", "exec", "tftp",
        "tftpd", "tftpd-hpa", "atftpd", "ftp", "ftpd", "vsftpd", "proftpd", "pure-ftpd", "finger", "fingerd", "talk",
        "ntalk", "talkd", "chargen", "echo", "daytime", "discard", "time", "ypserv", "ypbind", "rwhod", "rusersd",
        "rstatd", "rpc", "xdmcp", "uucp",
    }
)  # fmt: skip


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
        "listening_interfaces": sorted({s.interface for s in listening if s.interface}),
        "opened_sockets": list(section.opened),
        "closed_sockets": list(section.closed),
    }


@lru_cache(maxsize=_TEXTS_KEPT)
def plain_name(unit: str) -> str:
    """What a service is called by people: without inetd's mark, `in.`, instance and kind of unit; lower case."""
    name = unit.lower().removeprefix("xinetd:").removeprefix("inetd:").removeprefix("in.")
    return name.partition("@")[0].partition(".")[0]


def _services(section: ServicesSection) -> dict[str, Any]:
    names = {plain_name(u.name) for u in section.units if u.enabled or u.active}
    return {
        "service_names": sorted(names),
        "enabled_services": [u.name for u in section.units if u.enabled],
        "active_services": [u.name for u in section.units if u.active],
        "service_init": section.init,
        "insecure_services": sorted(names & _INSECURE),
        "appeared_services": list(section.appeared),
        "vanished_services": list(section.vanished),
    }


def _firewall(section: FirewallSection) -> dict[str, Any]:
    return {
        "firewall_backend": section.backend,
        "firewall_active": section.active,
        "firewall_default_input": _known(section.default_input),
        "firewall_default_forward": _known(section.default_forward),
        "firewall_default_output": _known(section.default_output),
        "firewall_uncovered": None if section.uncovered is None else list(section.uncovered),
    }


def _known(word: str) -> str | None:
    return None if word == "unknown" else word


def _disk(section: DiskSection) -> dict[str, Any]:
    return {
        "root_encrypted": section.root_encrypted,
        "data_encrypted": section.data_encrypted,
        "unencrypted_mounts": [mount.path for mount in section.mounts if mount.encrypted is False],
        "swap_encryption": _known(section.swap),
        "fscrypt_mounts": list(section.fscrypt),
    }


def _mac(section: MacSection) -> dict[str, Any]:
    complaining = section.complaining_profiles
    return {
        "mac_system": section.system,
        "mac_mode": _known(section.mode),
        "mac_configured": _known(section.configured),
        "mac_policy": section.policy,
        "mac_complaining_profiles": 0 if section.system != "apparmor" else complaining,
        "mac_denials": section.denials,
    }


def _logging(section: LoggingSection) -> dict[str, Any]:
    return {
        "journald_storage": _known(section.journald),
        "syslog_daemon": section.syslog,
        "syslog_running": section.syslog_running if section.syslog else False,
        "log_targets": list(section.remote_targets),
        "audit_state": _known(section.audit),
        "audit_rules": 0 if section.audit == "absent" else section.audit_rules,
        "log_rotation": section.rotation,
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (
    ("sockets", _sockets),
    ("services", _services),
    ("firewall", _firewall),
    ("disk", _disk),
    ("mac", _mac),
    ("logging", _logging),
)
