"""Sections about what is installed: system, updates, OpenSSL."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Name, Text, Wire, Word

MAX_PACKAGES: Final = 128

PackageScheme = Literal["deb", "rpm", "apk", "opkg", "unknown"]


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
