"""The posture report: what a device knows of its own security, one model for each section.

A section is either found out (`state: ok`), not to be found out (`unknown`, with the reason), or has no meaning on this
device (`notapplicable`, with the reason). Nothing else exists, so nothing can pretend to be a pass.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Counter, DeviceId, Digest, Name, Text, Timestamp, Wire, Word

MAX_SOCKETS: Final = 256  # entries of a report; what is cut is counted in `truncated`
MAX_UNITS: Final = 384
MAX_PACKAGES: Final = 128

PackageScheme = Literal["deb", "rpm", "apk", "opkg", "unknown"]


class Unavailable(Wire):
    """A section the device has no facts for, and why."""

    state: Literal["unknown", "notapplicable"]
    reason: Annotated[Text, Field(min_length=1)]


class OsSection(Wire):
    """Which system this is; from os-release and uname."""

    state: Literal["ok"] = "ok"
    id: Word
    version: Text = ""
    kernel: Text
    machine: Text = ""


class PendingPackage(Wire):
    """A package with a security update waiting."""

    name: Name
    installed: Text = ""
    candidate: Text


class UpdatesSection(Wire):
    """What the package manager would still install; ages in days."""

    state: Literal["ok"] = "ok"
    manager: Word
    security_pending: Annotated[int, Field(ge=0, le=100_000)]
    oldest_security_days: Annotated[int, Field(ge=0, le=36_500)] | None = None
    reboot_required: bool | None = None
    packages: Annotated[tuple[PendingPackage, ...], Field(max_length=MAX_PACKAGES)] = ()
    truncated: Counter = 0


class PackageVersion(Wire):
    """An installed package; `scheme` says by whose rules its version is ordered."""

    name: Name
    version: Text
    scheme: PackageScheme


class OpensslSection(Wire):
    """The OpenSSL in use: upstream version and the distribution's package, which is what decides."""

    state: Literal["ok"] = "ok"
    version: Text
    package: PackageVersion | None = None


class ListeningSocket(Wire):
    """A socket that waits for others; `process` is empty where the device may not see it."""

    proto: Literal["tcp", "udp"]
    address: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    process: Text = ""


class SocketsSection(Wire):
    """Every listening TCP and bound UDP socket."""

    state: Literal["ok"] = "ok"
    listening: Annotated[tuple[ListeningSocket, ...], Field(max_length=MAX_SOCKETS)] = ()
    truncated: Counter = 0


class ServiceUnit(Wire):
    """A service of the init system, or an entry of inetd (`inetd:` before its name)."""

    name: Name
    enabled: bool
    active: bool


class ServicesSection(Wire):
    """Every service that is enabled or running."""

    state: Literal["ok"] = "ok"
    units: Annotated[tuple[ServiceUnit, ...], Field(max_length=MAX_UNITS)] = ()
    truncated: Counter = 0


class FirewallSection(Wire):
    """Whether something filters traffic; `default_input` is what happens to a packet no rule speaks of."""

    state: Literal["ok"] = "ok"
    backend: Word
    active: bool
    default_input: Literal["accept", "drop", "reject", "unknown"] = "unknown"
    rules: Annotated[int, Field(ge=0, le=1_000_000)] = 0


_Os = Annotated[OsSection | Unavailable, Field(discriminator="state")]
_Updates = Annotated[UpdatesSection | Unavailable, Field(discriminator="state")]
_Openssl = Annotated[OpensslSection | Unavailable, Field(discriminator="state")]
_Sockets = Annotated[SocketsSection | Unavailable, Field(discriminator="state")]
_Services = Annotated[ServicesSection | Unavailable, Field(discriminator="state")]
_Firewall = Annotated[FirewallSection | Unavailable, Field(discriminator="state")]


class Sections(Wire):
    """All sections of a full report; one that is missing was not collected, and counts as unknown."""

    os: _Os | None = None
    updates: _Updates | None = None
    openssl: _Openssl | None = None
    sockets: _Sockets | None = None
    services: _Services | None = None
    firewall: _Firewall | None = None


class _Report(Wire):
    v: Literal[1]
    device_id: DeviceId
    seq: Counter
    sent_at: Timestamp
    digest: Digest


class FullReport(_Report):
    """Everything the device knows; kept by it until the controller's receipt accepts it."""

    kind: Literal["full"]
    boot_id: Annotated[Text, Field(max_length=64)] = ""
    agent: Annotated[Text, Field(max_length=64)] = ""
    sections: Sections


class Heartbeat(_Report):
    """Still here, and nothing changed since the report whose digest this is."""

    kind: Literal["heartbeat"]


Report = Annotated[FullReport | Heartbeat, Field(discriminator="kind")]
REPORT: Final[TypeAdapter[FullReport | Heartbeat]] = TypeAdapter(Report)


def sections_of(report: bytes) -> Sections:
    """The sections of a full report that was accepted before.

    Raises:
        ValidationError: it is not a full report, or not one that this version reads.
    """
    return FullReport.model_validate_json(report).sections


def digest_of(sections: Mapping[str, Any]) -> str:
    """The digest of a full set of sections: SHA-256 over JSON with sorted keys and no spaces.

    The device computes it over everything it found, before any list is cut.
    """
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
