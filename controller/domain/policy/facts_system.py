"""Facts about the system: sockets, services, firewall, disk encryption, mandatory access control, logging."""

import re
from collections.abc import Mapping
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

# A fleet has few different addresses and service names, so that their parsed forms are cached.
_MAX_CACHED: Final = 4096  # entries

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "listening_ports": ("list(int)", "sockets", "listening ports, TCP and UDP, on any address"),
    "exposed_ports": ("list(int)", "sockets", "listening ports that are not bound to loopback only"),
    "exposed_tcp_ports": ("list(int)", "sockets", "those of `exposed_ports` with a TCP socket"),
    "exposed_udp_ports": ("list(int)", "sockets", "those of `exposed_ports` with a UDP socket"),
    "listening_processes": ("list(string)", "sockets", "names of the processes behind listening sockets"),
    "enabled_services": ("list(string)", "services", "services that are enabled at boot"),
    "active_services": ("list(string)", "services", "running services"),
    "service_names": (
        "list(string)",
        "services",
        "plain names of enabled or running services: `telnetd` for `telnetd.service` and `inetd:in.telnetd`",
    ),
    "firewall_backend": ("string", "firewall", "nftables, iptables, ufw, firewalld or none"),
    "firewall_active": ("bool", "firewall", "whether the kernel's rules drop or refuse anything that comes in"),
    "firewall_default_input": (
        "string",
        "firewall",
        "what becomes of packets from outside to ports in general: accept, drop or reject",
    ),
    "opened_sockets": (
        "list(string)",
        "sockets",
        "sockets opened by the last change, reported for a day: `tcp 0.0.0.0:23 telnetd`",
    ),
    "closed_sockets": ("list(string)", "sockets", "sockets closed by the last change, reported for a day"),
    "listening_interfaces": ("list(string)", "sockets", "interfaces with a listening socket; `*` for all of them"),
    "service_init": ("string", "services", "init system: systemd, openrc, procd, sysv, busybox, slackware, s6, runit"),
    "insecure_services": (
        "list(string)",
        "services",
        "plain names of enabled or running services that are known to be insecure: telnet, rsh, tftp, ...",
    ),
    "appeared_services": ("list(string)", "services", "services added by the last change, reported for a day"),
    "vanished_services": ("list(string)", "services", "services removed by the last change, reported for a day"),
    "firewall_default_forward": ("string", "firewall", "the same for packets from outside that are forwarded"),
    "firewall_default_output": ("string", "firewall", "the same for outgoing packets"),
    "firewall_uncovered": (
        "list(string)",
        "firewall",
        "exposed sockets that packets from outside reach without a rule for their port: `tcp/22`",
    ),
    "root_encrypted": ("bool", "disk", "whether the root file system is on an encrypted device"),
    "data_encrypted": ("bool", "disk", "whether all other writable file systems are"),
    "unencrypted_mounts": ("list(string)", "disk", "mount points of unencrypted file systems"),
    "swap_encryption": ("string", "disk", "none, encrypted or plain"),
    "fscrypt_mounts": ("list(string)", "disk", "file systems with a folder that fscrypt encrypts"),
    "mac_system": ("string", "mac", "selinux, apparmor or none"),
    "mac_mode": ("string", "mac", "enforcing, permissive or disabled"),
    "mac_configured": ("string", "mac", "the mode after the next boot"),
    "mac_policy": ("string", "mac", "name of the policy, such as targeted"),
    "mac_complaining_profiles": ("int", "mac", "AppArmor profiles in complain mode; 0 for SELinux"),
    "mac_denials": ("int", "mac", "denials of the last day, rounded down to 0, 1, 10, 100, ..."),
    "journald_storage": ("string", "logging", "absent, none, volatile or persistent"),
    "syslog_daemon": ("string", "logging", "rsyslog, syslog-ng, logd, busybox or empty"),
    "syslog_running": ("bool", "logging", "whether the syslog daemon runs; false without one"),
    "log_targets": ("list(string)", "logging", "other machines that logs are sent to: `tls logs.example:6514`"),
    "logs_kept": (
        "bool",
        "logging",
        "whether logs survive a restart, in the journal or in files on a disk",
    ),
    "audit_state": ("string", "logging", "absent, stopped or running"),
    "audit_rules": ("int", "logging", "number of auditd's rules; 0 without it"),
    "log_rotation": ("string", "logging", "what rotates logs: logrotate, journald, ... or empty"),
}
# Facts that are complete even if a list of their section is truncated.
COMPLETE: Final = frozenset(name for name, (kind, _, _) in CATALOGUE.items() if not kind.startswith("list"))
# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("listening_ports", "exposed_ports", "exposed_tcp_ports", "exposed_udp_ports", "listening_interfaces"),
        ("listening",),
    ),
    "listening_processes": ("listening",),
    "opened_sockets": ("opened", "listening"),
    "closed_sockets": ("closed", "listening"),
    **dict.fromkeys(("enabled_services", "active_services", "service_names", "insecure_services"), ("units",)),
    "service_init": ("init",),
    "appeared_services": ("appeared", "units"),
    "vanished_services": ("vanished", "units"),
    "firewall_backend": ("backend",),
    "firewall_active": ("active",),
    "firewall_default_input": ("default_input",),
    "firewall_default_forward": ("default_forward",),
    "firewall_default_output": ("default_output",),
    "firewall_uncovered": ("uncovered",),
    "root_encrypted": ("root_encrypted",),
    "data_encrypted": ("data_encrypted",),
    "unencrypted_mounts": ("mounts",),
    "swap_encryption": ("swap",),
    "fscrypt_mounts": ("fscrypt",),
    "mac_system": ("system",),
    "mac_mode": ("mode",),
    "mac_configured": ("configured",),
    "mac_policy": ("policy",),
    "mac_complaining_profiles": ("complaining_profiles",),
    "mac_denials": ("denials",),
    "journald_storage": ("journald",),
    "syslog_daemon": ("syslog",),
    "syslog_running": ("syslog_running", "syslog"),
    "log_targets": ("remote_targets",),
    "logs_kept": ("kept",),
    "audit_state": ("audit",),
    "audit_rules": ("audit_rules", "audit"),
    "log_rotation": ("rotation",),
}

# Protocols without encryption, without authentication, or with authentication by address.
_INSECURE: Final = frozenset(
    {
        "telnet", "telnetd", "rsh", "rshd", "rlogin", "rlogind", "rexec", "rexecd", "shell", "login", "exec", "tftp",
        "tftpd", "tftpd-hpa", "atftpd", "ftp", "ftpd", "vsftpd", "proftpd", "pure-ftpd", "finger", "fingerd", "talk",
        "ntalk", "talkd", "chargen", "echo", "daytime", "discard", "time", "ypserv", "ypbind", "rwhod", "rusersd",
        "rstatd", "rpc", "xdmcp", "uucp", "utelnetd", "uftpd", "bftpd", "tnftpd", "wu-ftpd",
    }
)  # fmt: skip

# Packages of one service under other names: `inetutils-telnetd`, `busybox-telnetd`, `pure-ftpd-mysql`.
_VARIANT: Final = re.compile(
    r"^(?:inetutils|busybox-extras|busybox|openbsd|netkit|krb5|heimdal|bsd|gnu)-|-(?:mysql|postgresql|ldap|ssl|standalone|server|daemon)$"
)


@lru_cache(maxsize=_MAX_CACHED)
def _is_loopback(text: str) -> bool:
    """Whether the address is loopback; a text that is not an address counts as exposed."""
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
    exposed = [s for s in listening if not _is_loopback(s.address)]
    return {
        "listening_ports": sorted({s.port for s in listening}),
        "exposed_ports": sorted({s.port for s in exposed}),
        "exposed_tcp_ports": sorted({s.port for s in exposed if s.proto == "tcp"}),
        "exposed_udp_ports": sorted({s.port for s in exposed if s.proto == "udp"}),
        "listening_processes": sorted({s.process for s in listening if s.process}),
        "listening_interfaces": sorted({s.interface for s in listening if s.interface}),
        "opened_sockets": list(section.opened),
        "closed_sockets": list(section.closed),
    }


@lru_cache(maxsize=_MAX_CACHED)
def plain_name(unit: str) -> str:
    """Returns a service's common name: without inetd's mark, `in.`, instance and unit type, in lower case."""
    name = unit.lower().removeprefix("xinetd:").removeprefix("inetd:").removeprefix("inittab:").removeprefix("in.")
    return name.partition("@")[0].partition(".")[0]


@lru_cache(maxsize=_MAX_CACHED)
def insecure_name(plain: str) -> str:
    """Returns the insecure service that a plain name stands for (`inetutils-telnetd`: `telnetd`); empty for none."""
    bare = _VARIANT.sub("", plain)
    return next((name for name in (plain, bare) if name in _INSECURE), "")


def _services(section: ServicesSection) -> dict[str, Any]:
    used = [u for u in section.units if u.enabled or u.active]
    names = {plain_name(text) for u in used for text in (u.name, u.program) if text}
    return {
        "service_names": sorted(names),
        "enabled_services": [u.name for u in section.units if u.enabled],
        "active_services": [u.name for u in section.units if u.active],
        "service_init": section.init,
        "insecure_services": sorted({insecure for name in names if (insecure := insecure_name(name))}),
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


def _known(value: str) -> str | None:
    return None if value == "unknown" else value


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
        "logs_kept": section.kept,
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
