"""Sections about private keys and certificates in the configured folders."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import CollectedSection, Counter, Keyword, Name, Text, WireModel
from schemas.sections.software import PackageAgeDays

# Entries of a report; `truncated` counts the omitted ones.
MAX_KEY_FILES: Final = 128
MAX_CERTIFICATES: Final = 128
MAX_FOLDERS: Final = 32

_Mode = Annotated[str, Field(pattern=r"^[0-7]{4}$")]
_Bits = Annotated[int, Field(ge=0, le=65_536)]


class KeyFile(WireModel):
    """A private key file, without its content; `age_days` is the time since its last modification.

    `bits` is 0 if unknown without the passphrase, `protected` None if the format does not say. `readable_by` lists who
    else than the owner may read the file, `replaceable_by` who else may write to it or its folder.
    """

    path: Text
    format: Keyword
    kind: Keyword
    bits: _Bits = 0
    protected: bool | None = None
    age_days: PackageAgeDays
    owner: Name
    group: Name
    mode: _Mode
    folder_owner: Name
    folder_group: Name
    folder_mode: _Mode
    readable_by: Annotated[tuple[Literal["group", "others"], ...], Field(max_length=2, fail_fast=True)] = ()
    replaceable_by: Annotated[tuple[Literal["group", "others"], ...], Field(max_length=2, fail_fast=True)] = ()


class KeysSection(CollectedSection):
    """Every private key below `folders`."""

    folders: Annotated[tuple[Text, ...], Field(max_length=MAX_FOLDERS, fail_fast=True)] = ()
    entries: Annotated[tuple[KeyFile, ...], Field(max_length=MAX_KEY_FILES, fail_fast=True)] = ()
    truncated: Counter = 0


class CertificateFile(WireModel):
    """A certificate and the results of its checks.

    `days_left` is negative after expiry. `chain` is verified at a time within the validity, so that an expired
    certificate is not also untrusted. `name` states whether it names this device. `revoked` is the result of a fresh
    CRL with a valid signature of the issuer. `reason` explains every `notchecked`.
    """

    path: Text
    subject: Text
    issuer: Text
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
    kind: Keyword
    bits: _Bits = 0
    is_ca: bool
    is_own: bool = False
    self_signed: bool = False
    days_left: Annotated[int, Field(ge=-36_500, le=4_000_000)]
    not_yet_valid: bool = False
    chain: Literal["trusted", "untrusted", "notchecked"]
    name: Literal["matches", "differs", "notchecked"]
    crl: Literal["fresh", "stale", "badsignature", "notchecked"]
    revoked: Literal["no", "yes", "notchecked"]
    ocsp: Literal["good", "revoked", "unknown", "notchecked"]
    reason: Text = ""


class CertificatesSection(CollectedSection):
    """Every certificate below `folders`, and the device's own."""

    folders: Annotated[tuple[Text, ...], Field(max_length=MAX_FOLDERS, fail_fast=True)] = ()
    trust_store: Text = ""
    entries: Annotated[tuple[CertificateFile, ...], Field(max_length=MAX_CERTIFICATES, fail_fast=True)] = ()
    truncated: Counter = 0
