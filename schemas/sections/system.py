"""Sections about exposure and protection of the system: sockets, services, firewall, disk, mac, logging."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import CollectedSection, Counter, Keyword, Name, Text, WireModel

MAX_SOCKETS: Final = 256  # entries of a report; `truncated` counts the omitted ones
MAX_UNITS: Final = 384
MAX_CHANGES: Final = 32
MAX_CHAINS: Final = 32
MAX_UNCOVERED: Final = 64
MAX_MOUNTS: Final = 64
MAX_SWAPS: Final = 16
MAX_TARGETS: Final = 16

RecentChanges = Annotated[tuple[Text, ...], Field(max_length=MAX_CHANGES, fail_fast=True)]
SystemCount = Annotated[int, Field(ge=0, le=1_000_000)]
FirewallVerdict = Literal["accept", "drop", "reject", "unknown"]


class ListeningSocket(WireModel):
    """A listening socket; `process` is empty where the agent may not read it.

    `interface` is the interface of the address, such as `lo` or `eth0`; `*` for all interfaces, empty if unknown.
    """

    proto: Literal["tcp", "udp"]
    address: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    process: Text = ""
    interface: Text = ""


class SocketsSection(CollectedSection):
    """Every listening TCP and bound UDP socket; `opened` and `closed` are those of the last change, for a day."""

    listening: Annotated[tuple[ListeningSocket, ...], Field(max_length=MAX_SOCKETS, fail_fast=True)] = ()
    opened: RecentChanges = ()
    closed: RecentChanges = ()
    truncated: Counter = 0


class ServiceUnit(WireModel):
    """A service of the init system, or an entry of inetd, xinetd or inittab (`inetd:`, ... before its name).

    `program` is a program that it starts: its name may be a port number or free. A service of several has a unit for
    each; `tftp` stands for that part of dnsmasq. What rc.local and `@reboot` lines start are `rc.local`, `crontab`.
    """

    name: Name
    enabled: bool
    active: bool
    program: Text = ""


class ServicesSection(CollectedSection):
    """Every enabled or running service; `appeared` and `vanished` are those of the last change, for a day."""

    init: Text = ""
    units: Annotated[tuple[ServiceUnit, ...], Field(max_length=MAX_UNITS, fail_fast=True)] = ()
    appeared: RecentChanges = ()
    vanished: RecentChanges = ()
    truncated: Counter = 0


class FirewallChain(WireModel):
    """A chain attached to a hook, and what becomes of packets from outside to ports in general in it."""

    table: Text
    name: Name
    hook: Text
    policy: FirewallVerdict


class FirewallSection(CollectedSection):
    """The packet filter; `default_input` is the verdict on packets from outside to ports in general.

    `uncovered` lists the listening ports (`tcp/22`) that such packets reach without a rule that names the port; None if
    unknown.
    """

    backend: Keyword
    active: bool | None = None
    default_input: FirewallVerdict = "unknown"
    default_forward: FirewallVerdict = "unknown"
    default_output: FirewallVerdict = "unknown"
    rules: SystemCount = 0
    chains: Annotated[tuple[FirewallChain, ...], Field(max_length=MAX_CHAINS, fail_fast=True)] = ()
    uncovered: Annotated[tuple[Keyword, ...], Field(max_length=MAX_UNCOVERED, fail_fast=True)] | None = None
    truncated: Counter = 0


class Mount(WireModel):
    """A local file system, whether the devices below it are encrypted (None: unknown), and the method."""

    path: Text
    device: Text
    kind: Text
    encrypted: bool | None = None
    how: Text = ""


class SwapArea(WireModel):
    """A swap area; `how` is `memory` for zram, which writes nothing to a disk."""

    device: Text
    encrypted: bool | None = None
    how: Text = ""


class DiskSection(CollectedSection):
    """Encryption of the root, of all other writable file systems, and of swap.

    `fscrypt` lists the mounts with a folder that fscrypt encrypts.
    """

    root_encrypted: bool | None = None
    data_encrypted: bool | None = None
    swap: Literal["none", "encrypted", "plain", "unknown"] = "unknown"
    mounts: Annotated[tuple[Mount, ...], Field(max_length=MAX_MOUNTS, fail_fast=True)] = ()
    swaps: Annotated[tuple[SwapArea, ...], Field(max_length=MAX_SWAPS, fail_fast=True)] = ()
    fscrypt: Annotated[tuple[Text, ...], Field(max_length=MAX_MOUNTS, fail_fast=True)] = ()
    truncated: Counter = 0


class MacSection(CollectedSection):
    """Mandatory access control; `mode` is the current mode, `configured` that after the next boot.

    AppArmor's mode is enforcing when more profiles are enforced than only complain.

    `denials` counts those of the last 24 hours, rounded down to 0, 1, 10, 100, ...
    """

    system: Literal["selinux", "apparmor", "none"]
    mode: Literal["enforcing", "permissive", "disabled", "unknown"] = "unknown"
    configured: Literal["enforcing", "permissive", "disabled", "unknown"] = "unknown"
    policy: Text = ""
    enforced_profiles: SystemCount | None = None
    complaining_profiles: SystemCount | None = None
    denials: SystemCount | None = None


class LoggingSection(CollectedSection):
    """Logging: journald, syslog, remote targets, the audit daemon, and what limits the size of the logs.

    `kept` is whether logs survive a restart; `remote_targets` are other machines only.
    """

    journald: Literal["absent", "none", "volatile", "persistent", "unknown"] = "absent"
    syslog: Text = ""
    syslog_running: bool | None = None
    kept: bool | None = None
    remote_targets: Annotated[tuple[Text, ...], Field(max_length=MAX_TARGETS, fail_fast=True)] = ()
    audit: Literal["absent", "stopped", "running", "unknown"] = "absent"
    audit_rules: SystemCount | None = None
    rotation: Text = ""
    truncated: Counter = 0
