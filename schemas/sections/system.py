"""Sections about what runs, what is open and what guards it: sockets, services, firewall, disk, mac, logging."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Keyword, Name, Text, WireModel

MAX_SOCKETS: Final = 256  # entries of a report; what is cut is counted in `truncated`
MAX_UNITS: Final = 384
MAX_CHANGES: Final = 32
MAX_CHAINS: Final = 32
MAX_UNCOVERED: Final = 64
MAX_MOUNTS: Final = 64
MAX_SWAPS: Final = 16
MAX_TARGETS: Final = 16
MAX_GAPS: Final = 16

CollectionGaps = Annotated[tuple[Text, ...], Field(max_length=MAX_GAPS)]
"""`field: reason` for each field of a section that could not be found out."""
RecentChanges = Annotated[tuple[Text, ...], Field(max_length=MAX_CHANGES)]
SystemCount = Annotated[int, Field(ge=0, le=1_000_000)]
FirewallVerdict = Literal["accept", "drop", "reject", "unknown"]


class ListeningSocket(WireModel):
    """A socket that waits for others; `process` is empty where the device may not see it.

    `interface` has the address: `lo`, `eth0`; `*` for an address that means all of them, empty where it cannot be told.
    """

    proto: Literal["tcp", "udp"]
    address: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    process: Text = ""
    interface: Text = ""


class SocketsSection(WireModel):
    """Every listening TCP and bound UDP socket; `opened` and `closed` by the last change, told for a day."""

    state: Literal["ok"] = "ok"
    listening: Annotated[tuple[ListeningSocket, ...], Field(max_length=MAX_SOCKETS)] = ()
    opened: RecentChanges = ()
    closed: RecentChanges = ()
    truncated: Counter = 0


class ServiceUnit(WireModel):
    """A service of the init system, or an entry of inetd or xinetd (`inetd:`, `xinetd:` before its name)."""

    name: Name
    enabled: bool
    active: bool


class ServicesSection(WireModel):
    """Every service that is enabled or running; `appeared` and `vanished` as with sockets."""

    state: Literal["ok"] = "ok"
    init: Text = ""
    units: Annotated[tuple[ServiceUnit, ...], Field(max_length=MAX_UNITS)] = ()
    appeared: RecentChanges = ()
    vanished: RecentChanges = ()
    truncated: Counter = 0


class FirewallChain(WireModel):
    """A chain that the kernel itself sends packets through, and what becomes of those that reach its end."""

    table: Text
    name: Name
    hook: Text
    policy: FirewallVerdict


class FirewallSection(WireModel):
    """Whether something filters traffic; `default_input` is what happens to a packet no rule speaks of.

    `uncovered` are the exposed listening ports (`tcp/22`) that no rule decides about; None where that cannot be told.
    """

    state: Literal["ok"] = "ok"
    backend: Keyword
    active: bool
    default_input: FirewallVerdict = "unknown"
    default_forward: FirewallVerdict = "unknown"
    default_output: FirewallVerdict = "unknown"
    rules: SystemCount = 0
    chains: Annotated[tuple[FirewallChain, ...], Field(max_length=MAX_CHAINS)] = ()
    uncovered: Annotated[tuple[Keyword, ...], Field(max_length=MAX_UNCOVERED)] | None = None
    gaps: CollectionGaps = ()
    truncated: Counter = 0


class Mount(WireModel):
    """A local file system and whether what lies beneath it is encrypted; None where that cannot be seen."""

    path: Text
    device: Text
    kind: Text
    encrypted: bool | None = None
    how: Text = ""


class SwapArea(WireModel):
    """A swap area; one in memory (zram) leaves nothing on a disk."""

    device: Text
    encrypted: bool | None = None
    how: Text = ""


class DiskSection(WireModel):
    """What lies encrypted: the root, what else is written to, and swap; `fscrypt` names mounts that use it."""

    state: Literal["ok"] = "ok"
    root_encrypted: bool | None = None
    data_encrypted: bool | None = None
    swap: Literal["none", "encrypted", "plain", "unknown"] = "unknown"
    mounts: Annotated[tuple[Mount, ...], Field(max_length=MAX_MOUNTS)] = ()
    swaps: Annotated[tuple[SwapArea, ...], Field(max_length=MAX_SWAPS)] = ()
    fscrypt: Annotated[tuple[Text, ...], Field(max_length=MAX_MOUNTS)] = ()
    gaps: CollectionGaps = ()
    truncated: Counter = 0


class MacSection(WireModel):
    """Mandatory access control: by which system, in which mode now and after the next start.

    `denials` counts those of the last whole day, rounded down to 0, 1, 10, 100, ...
    """

    state: Literal["ok"] = "ok"
    system: Literal["selinux", "apparmor", "none"]
    mode: Literal["enforcing", "permissive", "disabled", "unknown"]
    configured: Literal["enforcing", "permissive", "disabled", "unknown"] = "unknown"
    policy: Text = ""
    enforced_profiles: SystemCount | None = None
    complaining_profiles: SystemCount | None = None
    denials: SystemCount | None = None
    gaps: CollectionGaps = ()


class LoggingSection(WireModel):
    """Whether what happens is written down, kept over a restart, sent elsewhere and cleared away in time."""

    state: Literal["ok"] = "ok"
    journald: Literal["absent", "none", "volatile", "persistent", "unknown"] = "absent"
    syslog: Text = ""
    syslog_running: bool | None = None
    remote_targets: Annotated[tuple[Text, ...], Field(max_length=MAX_TARGETS)] = ()
    audit: Literal["absent", "stopped", "running", "unknown"] = "absent"
    audit_rules: SystemCount | None = None
    rotation: Text = ""
    gaps: CollectionGaps = ()
    truncated: Counter = 0
