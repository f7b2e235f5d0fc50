"""Sections about what is installed and where it comes from: system, updates, package sources, OpenSSL."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Digest, Keyword, Name, Text, WireModel

# Entries of a report; what is cut is counted in `truncated`.
MAX_PACKAGES: Final = 128
MAX_INSTALLED: Final = 512
MAX_PACKAGE_SOURCES: Final = 64
MAX_STALE_PROCESSES: Final = 64
MAX_PROBLEMS: Final = 16

PackageScheme = Literal["deb", "rpm", "apk", "opkg", "unknown"]
PackageAgeDays = Annotated[int, Field(ge=0, le=36_500)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Problems = Annotated[tuple[Text, ...], Field(max_length=MAX_PROBLEMS)]
"""What could not be found out, and why: one sentence each."""


class OsSection(WireModel):
    """Which system this is; from os-release and uname."""

    state: Literal["ok"] = "ok"
    id: Keyword
    version: Text = ""
    kernel: Text
    machine: Text = ""


class PendingPackage(WireModel):
    """A package with a security update waiting."""

    name: Name
    installed: Text = ""
    candidate: Text


class UpdatesSection(WireModel):
    """What the package manager would still install; ages in days.

    `pending` counts every waiting update, `security_pending` those that are told apart as security updates, which not
    every package manager can do. `oldest_security_days` is since publication; `seen_security_days` since this device
    first saw the oldest one that still waits, so it is at least that old.
    `installed` has one line for each package, in order of name: name, version, and where they differ the name and the
    version of its source package, separated by spaces; `installed_digest` covers all of them.
    """

    state: Literal["ok"] = "ok"
    manager: Keyword
    security_pending: Count | None = None
    pending: Count | None = None
    oldest_security_days: PackageAgeDays | None = None
    seen_security_days: PackageAgeDays | None = None
    reboot_required: bool | None = None
    unattended: bool | None = None
    kernel_newest: Text = ""
    kernel_current: bool | None = None
    packages: Annotated[tuple[PendingPackage, ...], Field(max_length=MAX_PACKAGES)] = ()
    installed_count: Count | None = None
    installed_digest: Digest | None = None
    installed: Annotated[tuple[Text, ...], Field(max_length=MAX_INSTALLED)] = ()
    truncated: Counter = 0
    problems: Problems = ()


class PackageSource(WireModel):
    """Where packages may come from.

    `signed` says whether what comes from there is refused without a good signature; `key` is the keyring or key that is
    named for this source alone, empty when any key of the system will do. `flags` are the settings that weaken it, as
    they are written there. A password in the address is left out.
    """

    name: Name
    file: Text
    url: Text
    transport: Keyword
    enabled: bool
    signed: bool | None = None
    key: Text = ""
    flags: Annotated[tuple[Text, ...], Field(max_length=16)] = ()


class SourcesSection(WireModel):
    """Every configured package source; `keyrings` are the files of keys that are believed for any source."""

    state: Literal["ok"] = "ok"
    manager: Keyword
    entries: Annotated[tuple[PackageSource, ...], Field(max_length=MAX_PACKAGE_SOURCES)] = ()
    keyrings: Annotated[tuple[Text, ...], Field(max_length=MAX_PACKAGE_SOURCES)] = ()
    truncated: Counter = 0
    problems: Problems = ()


class PackageVersion(WireModel):
    """An installed package; `scheme` says by whose rules its version is ordered."""

    name: Name
    version: Text
    scheme: PackageScheme


class OpensslConfig(WireModel):
    """What openssl.cnf asks for, by its own words; what it leaves open is empty, and then the library decides."""

    file: Text
    min_protocol: Text = ""
    max_protocol: Text = ""
    cipher_string: Text = ""
    security_level: Annotated[int, Field(ge=0, le=5)] | None = None
    legacy_provider: bool = False
    fips: bool = False
    unsafe_options: Annotated[tuple[Text, ...], Field(max_length=MAX_PROBLEMS)] = ()


class OpensslSection(WireModel):
    """The OpenSSL in use: upstream version and the distribution's package, which is what decides.

    `version` is the program's, `library` that of the library it runs with. `stale_processes` are names of programs that
    still run with a libssl or libcrypto that was replaced on disk; None when that was not found out, and with
    `stale_hidden` a part only: so many processes of other users could not be looked at.
    `tls_errors` is how many there were in the journal in the last `tls_error_hours`: none, few (below 10), some (below
    100), many.
    """

    state: Literal["ok"] = "ok"
    version: Text
    package: PackageVersion | None = None
    library: Text = ""
    stale_processes: Annotated[tuple[Name, ...], Field(max_length=MAX_STALE_PROCESSES)] | None = None
    stale_hidden: bool = False
    config: OpensslConfig | None = None
    tls_errors: Literal["none", "few", "some", "many"] | None = None
    tls_error_hours: Annotated[int, Field(ge=1, le=720)] | None = None
    truncated: Counter = 0
    problems: Problems = ()
