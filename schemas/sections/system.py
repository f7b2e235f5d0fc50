"""Sections about what runs, what is open and what guards it: sockets, services, firewall, disk, mac, logging."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Name, Text, Wire, Word

MAX_SOCKETS: Final = 256  # entries of a report; what is cut is counted in `truncated`
MAX_UNITS: Final = 384
MAX_CHANGES: Final = 32
MAX_CHAINS: Final = 32
MAX_UNCOVERED: Final = 64
MAX_MOUNTS: Final = 64
MAX_SWAPS: Final = 16
MAX_TARGETS: Final = 16
MAX_GAPS: Final = 16

Gaps = Annotated[tuple[Text, ...], Field(max_length=MAX_GAPS)]
"""`field: reason` for each field of a section that could not be found out."""
Changes = Annotated[tuple[Text, ...], Field(max_length=MAX_CHANGES)]
Many = Annotated[int, Field(ge=0, le=1_000_000)]
Verdict = Literal["accept", "drop", "reject", "unknown"]


class ListeningSocket(Wire):
    """A socket that waits for others; `process` is empty where the device may not see it.

    `interface` has the address: `lo`, `eth0`; `*` for an address that means all of them, empty where it cannot be told.
    """

    proto: Literal["tcp", "udp"]
    address: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    process: Text = ""
    interface: Text = ""


class SocketsSection(Wire):
    """Every listening TCP and bound UDP socket; `opened` and `closed` by the last change, told for a day."""

    state: Literal["ok"] = "ok"
    listening: Annotated[tuple[ListeningSocket, ...], Field(max_length=MAX_SOCKETS)] = ()
    opened: Changes = ()
    closed: Changes = ()
    truncated: Counter = 0


class ServiceUnit(Wire):
    """A service of the init system, or an entry of inetd or xinetd (`inetd:`, `xinetd:` before its name)."""

    name: Name
    enabled: bool
    active: bool


class ServicesSection(Wire):
    """Every service that is enabled or running; `appeared` and `vanished` as with sockets."""

    state: Literal["ok"] = "ok"
    init: Text = ""
    units: Annotated[tuple[ServiceUnit, ...], Field(max_length=MAX_UNITS)] = ()
    appeared: Changes = ()
    vanished: Changes = ()
    truncated: Counter = 0


class FirewallChain(Wire):
    """A chain that the kernel itself sends packets through, and what becomes of those that reach its end."""

    table: Text
    name: Name
    hook: Text
    policy: Verdict


class FirewallSection(Wire):
    """Whether something filters traffic; `default_input` is what happens to a packet no rule speaks of.

    `uncovered` are the exposed listening ports (`tcp/22`) that no rule decides about; None where that cannot be told.
    """

    state: Literal["ok"] = "ok"
    backend: Word
    active: bool
    default_input: Verdict = "unknown"
    default_forward: Verdict = "unknown"
    default_output: Verdict = "unknown"
    rules: Many = 0
    chains: Annotated[tuple[FirewallChain, ...], Field(max_length=MAX_CHAINS)] = ()
    uncovered: Annotated[tuple[Word, ...], Field(max_length=MAX_UNCOVERED)] | None = None
    gaps: Gaps = ()
    truncated: Counter = 0


class Mount(Wire):
    """A local file system and whether what lies beneath it is encrypted; None where that cannot be seen."""

    path: Text
    device: Text
    kind: Text
    encrypted: bool | None = None
    how: Text = ""


class SwapArea(Wire):
    """A swap area; one in memory (zram) leaves nothing on a disk."""

    device: Text
    encrypted: bool | None = None
    how: Text = ""


class DiskSection(Wire):
    """What lies encrypted: the root, what else is written to, and swap; `fscrypt` names mounts that use it."""

    state: Literal["ok"] = "ok"
    root_encrypted: bool | None = None
    data_encrypted: bool | None = None
    swap: Literal["none", "encrypted", "plain", "unknown"] = "unknown"
    mounts: Annotated[tuple[Mount, ...], Field(max_length=MAX_MOUNTS)] = ()
    swaps: Annotated[tuple[SwapArea, ...], Field(max_length=MAX_SWAPS)] = ()
    fscrypt: Annotated[tuple[Text, ...], Field(max_length=MAX_MOUNTS)] = ()
    gaps: Gaps = ()
    truncated: Counter = 0


class MacSection(Wire):
    """Mandatory access control: by which system, in which mode now and after the next start.

    `denials` counts those of the last whole day, rounded down to 0, 1, 10, 100, ...
    """

    state: Literal["ok"] = "ok"
    system: Literal["selinux", "apparmor", "none"]
    mode: Literal["enforcing", "permissive", "disabled", "unknown"]
    configured: Literal["enforcing", "permissive", "disabled", "unknown"] = "unknown"
    policy: Text = ""
    enforced_profiles: Many | None = None
    complaining_profiles: Many | None = None
    denials: Many | None = None
    gaps: Gaps = ()


class LoggingSection(Wire):
    """Whether what happens is written down, kept over a restart, sent elsewhere and cleared away in time."""

    state: Literal["ok"] = "ok"
    journald: Literal["absent", "none", "volatile", "persistent", "unknown"] = "absent"
    syslog: Text = ""
    syslog_running: bool | None = None
    remote_targets: Annotated[tuple[Text, ...], Field(max_length=MAX_TARGETS)] = ()
    audit: Literal["absent", "stopped", "running", "unknown"] = "absent"
    audit_rules: Many | None = None
    rotation: Text = ""
    gaps: Gaps = ()
    truncated: Counter = 0
