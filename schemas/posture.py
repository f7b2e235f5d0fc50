"""The posture report: a device's security-relevant facts, one model for each section (`schemas.sections`).

A section is collected (`state: ok`), could not be collected (`unknown`, with the reason), or does not apply to this
device (`notapplicable`, with the reason); unknown is never a pass.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from schemas.base import MAX_KEY_TEXT, Counter, DeviceId, Digest, Text, Timestamp, Unavailable, WireModel
from schemas.events import NONCE_DIGITS
from schemas.sections.access import AccessSection, SshSection
from schemas.sections.crypto import CertificatesSection, KeysSection
from schemas.sections.installed import SoftwareSection
from schemas.sections.software import OpensslSection, OsSection, SourcesSection, UpdatesSection
from schemas.sections.system import (
    DiskSection,
    FirewallSection,
    LoggingSection,
    MacSection,
    ServicesSection,
    SocketsSection,
)
from schemas.sections.tools import IntegritySection, IntrusionSection, LynisSection, OpenscapSection

_Os = Annotated[OsSection | Unavailable, Field(discriminator="state")]
_Updates = Annotated[UpdatesSection | Unavailable, Field(discriminator="state")]
_Sources = Annotated[SourcesSection | Unavailable, Field(discriminator="state")]
_Openssl = Annotated[OpensslSection | Unavailable, Field(discriminator="state")]
_Keys = Annotated[KeysSection | Unavailable, Field(discriminator="state")]
_Certificates = Annotated[CertificatesSection | Unavailable, Field(discriminator="state")]
_Sockets = Annotated[SocketsSection | Unavailable, Field(discriminator="state")]
_Services = Annotated[ServicesSection | Unavailable, Field(discriminator="state")]
_Firewall = Annotated[FirewallSection | Unavailable, Field(discriminator="state")]
_Access = Annotated[AccessSection | Unavailable, Field(discriminator="state")]
_Ssh = Annotated[SshSection | Unavailable, Field(discriminator="state")]
_Disk = Annotated[DiskSection | Unavailable, Field(discriminator="state")]
_Mac = Annotated[MacSection | Unavailable, Field(discriminator="state")]
_Logging = Annotated[LoggingSection | Unavailable, Field(discriminator="state")]
_Lynis = Annotated[LynisSection | Unavailable, Field(discriminator="state")]
_Openscap = Annotated[OpenscapSection | Unavailable, Field(discriminator="state")]
_Intrusion = Annotated[IntrusionSection | Unavailable, Field(discriminator="state")]
_Integrity = Annotated[IntegritySection | Unavailable, Field(discriminator="state")]
_Software = Annotated[SoftwareSection | Unavailable, Field(discriminator="state")]


class ReportSections(WireModel):
    """All sections of a full report; a missing section was not collected and counts as unknown."""

    os: _Os | None = None
    updates: _Updates | None = None
    sources: _Sources | None = None
    openssl: _Openssl | None = None
    keys: _Keys | None = None
    certificates: _Certificates | None = None
    sockets: _Sockets | None = None
    services: _Services | None = None
    firewall: _Firewall | None = None
    access: _Access | None = None
    ssh: _Ssh | None = None
    disk: _Disk | None = None
    mac: _Mac | None = None
    logging: _Logging | None = None
    lynis: _Lynis | None = None
    openscap: _Openscap | None = None
    intrusion: _Intrusion | None = None
    integrity: _Integrity | None = None
    software: _Software | None = None


# The nonce of a receipt received before the scan began; empty without one. Absent: the agent does not support nonces.
_Answers = Annotated[str, StringConstraints(pattern=rf"^(?:[0-9a-f]{{{NONCE_DIGITS}}})?$")] | None

# In signed reports: the public signing key (base64). Their `receipt` is the digest of the last report with a receipt.
_Key = Annotated[str, StringConstraints(max_length=MAX_KEY_TEXT, pattern=r"^[A-Za-z0-9+/]*={0,2}$")] | None


class _Report(WireModel):
    v: Literal[1]
    device_id: DeviceId
    seq: Counter
    sent_at: Timestamp
    digest: Digest


class FullReport(_Report):
    """All sections; the device keeps the report until a receipt accepts it."""

    kind: Literal["full"]
    boot_id: Annotated[Text, Field(max_length=64)] = ""
    agent: Annotated[Text, Field(max_length=64)] = ""
    answers: _Answers = None
    receipt: Digest | None = None
    signing_key: _Key = None
    sections: ReportSections


class DeltaReport(_Report):
    """The sections that changed since the report with the digest `base`."""

    kind: Literal["delta"]
    base: Digest
    boot_id: Annotated[Text, Field(max_length=64)] = ""
    agent: Annotated[Text, Field(max_length=64)] = ""
    answers: _Answers = None
    receipt: Digest | None = None
    signing_key: _Key = None
    sections: ReportSections

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.digest == self.base:
            raise ValueError("a delta must have another digest than its base")
        return self


class Heartbeat(_Report):
    """States that nothing changed since the report with this digest."""

    kind: Literal["heartbeat"]


Report = Annotated[FullReport | DeltaReport | Heartbeat, Field(discriminator="kind")]
REPORT: Final[TypeAdapter[FullReport | DeltaReport | Heartbeat]] = TypeAdapter(Report)


def sections_of(report: bytes) -> ReportSections:
    """Returns the sections of a full report.

    Raises:
        ValidationError: not a full report, or of an unsupported version.
    """
    return FullReport.model_validate_json(report).sections


def digest_of(sections: Mapping[str, Any]) -> str:
    """Returns the digest of all sections: SHA-256 over JSON with sorted keys and no spaces.

    The device computes it over the complete facts, before any list is truncated.
    """
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
