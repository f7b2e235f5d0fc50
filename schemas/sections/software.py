"""Sections about installed software: operating system, updates, package sources, OpenSSL."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import CollectedSection, Counter, Digest, Keyword, Name, Text, WireModel

# Entries of a report; `truncated` counts the omitted ones.
MAX_PACKAGES: Final = 128
MAX_PENDING_NAMES: Final = 256
MAX_INSTALLED: Final = 512
MAX_PACKAGE_SOURCES: Final = 64
MAX_STALE_PROCESSES: Final = 64
MAX_PROBLEMS: Final = 16

PackageScheme = Literal["deb", "rpm", "apk", "opkg", "unknown"]
PackageAgeDays = Annotated[int, Field(ge=0, le=36_500)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class OsSection(CollectedSection):
    """The operating system, from os-release and uname; of an image, its newest kernel and its architecture."""

    id: Keyword
    version: Text = ""
    kernel: Text = ""
    machine: Text = ""


class PendingPackage(WireModel):
    """A package with a pending security update."""

    name: Name
    installed: Text = ""
    candidate: Text


class UpdatesSection(CollectedSection):
    """Installed packages and pending updates; ages in days.

    `pending` counts all pending updates, `security_pending` the security updates, which not every package manager
    distinguishes. `pending_names` are the names of the packages that `pending` counts, each once, those with a security
    update first. `oldest_security_days` is the time since publication, `seen_security_days` that since this device
    first saw the oldest pending one, a lower bound of its age.
    `installed` has one line for each package, sorted: name, version, and where they differ the name and the version of
    its source package, separated by spaces; `installed_digest` covers all of them.
    """

    manager: Keyword
    security_pending: Count | None = None
    pending: Count | None = None
    oldest_security_days: PackageAgeDays | None = None
    seen_security_days: PackageAgeDays | None = None
    reboot_required: bool | None = None
    unattended: bool | None = None
    kernel_newest: Text = ""
    kernel_current: bool | None = None
    packages: Annotated[tuple[PendingPackage, ...], Field(max_length=MAX_PACKAGES, fail_fast=True)] = ()
    pending_names: Annotated[tuple[Name, ...], Field(max_length=MAX_PENDING_NAMES, fail_fast=True)] | None = None
    installed_count: Count | None = None
    installed_digest: Digest | None = None
    installed: Annotated[tuple[Text, ...], Field(max_length=MAX_INSTALLED, fail_fast=True)] = ()
    truncated: Counter = 0


class PackageSource(WireModel):
    """A source of packages.

    `signed` states whether packages without a valid signature are refused. `key` is the keyring or key configured for
    this source alone, empty if any trusted key is accepted. `flags` are the settings that weaken it, as configured.
    Credentials in the URL are removed.
    """

    name: Name
    file: Text
    url: Text
    transport: Keyword
    enabled: bool
    signed: bool | None = None
    key: Text = ""
    flags: Annotated[tuple[Text, ...], Field(max_length=16, fail_fast=True)] = ()


class SourcesSection(CollectedSection):
    """Every configured package source; `keyrings` are the key files trusted for any source."""

    manager: Keyword
    entries: Annotated[tuple[PackageSource, ...], Field(max_length=MAX_PACKAGE_SOURCES, fail_fast=True)] = ()
    keyrings: Annotated[tuple[Text, ...], Field(max_length=MAX_PACKAGE_SOURCES, fail_fast=True)] = ()
    truncated: Counter = 0


class PackageVersion(WireModel):
    """An installed package; `scheme` determines how versions are compared."""

    name: Name
    version: Text
    scheme: PackageScheme


class OpensslConfig(WireModel):
    """The TLS policy in openssl.cnf, in its own notation; the library's default applies to empty fields."""

    file: Text
    min_protocol: Text = ""
    max_protocol: Text = ""
    cipher_string: Text = ""
    security_level: Annotated[int, Field(ge=0, le=5)] | None = None
    legacy_provider: bool = False
    fips: bool = False
    unsafe_options: Annotated[tuple[Text, ...], Field(max_length=MAX_PROBLEMS, fail_fast=True)] = ()


class OpensslSection(CollectedSection):
    """The OpenSSL in use: upstream version and the distribution's package, whose version is decisive.

    `version` is that of the program, `library` that of the library it runs with. `stale_processes` lists programs that
    still run with a libssl or libcrypto that was replaced on disk; None if unknown, incomplete with `stale_hidden`
    (processes of other users could not be read).
    `tls_errors` is the number in the journal of the last `tls_error_hours`: none, few (below 10), some (below 100) or
    many.
    """

    version: Text
    package: PackageVersion | None = None
    library: Text = ""
    stale_processes: Annotated[tuple[Name, ...], Field(max_length=MAX_STALE_PROCESSES, fail_fast=True)] | None = None
    stale_hidden: bool = False
    config: OpensslConfig | None = None
    tls_errors: Literal["none", "few", "some", "many"] | None = None
    tls_error_hours: Annotated[int, Field(ge=1, le=720)] | None = None
    truncated: Counter = 0
