"""Versions, file names and requirements that no device can install; found when an update is published. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from controller.domain.policy.versions import is_older_version
from schemas.updates import InstallerKind, UpdateTarget
from schemas.version_order import compare_plain_versions, has_plain_order

# What package managers report as the version of an installed package: others never match the signed one.
_VERSIONS: Final[Mapping[InstallerKind, tuple[re.Pattern[str], str]]] = {
    InstallerKind.APT: (re.compile(r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*"), "[EPOCH:]VERSION, and begins with a digit"),
    InstallerKind.DNF: (
        re.compile(r"([1-9][0-9]*:)?[A-Za-z0-9._+~]+-[A-Za-z0-9._+~]+"),
        "[EPOCH:]VERSION-RELEASE, without an epoch of 0",
    ),
    InstallerKind.APK: (re.compile(r"[0-9][A-Za-z0-9._~]*-r[0-9]+"), "VERSION-rN"),
}
_SUFFIXES: Final[Mapping[InstallerKind, str]] = {
    InstallerKind.APT: ".deb",
    InstallerKind.DNF: ".rpm",
    InstallerKind.APK: ".apk",
    InstallerKind.OPKG: ".ipk",
}
# Names that the installer uses itself, beside the folders of the versions.
_RESERVED: Final[Mapping[InstallerKind, str]] = {InstallerKind.FILESET: "current", InstallerKind.SCRIPT: "installed"}


def installability_fault(target: UpdateTarget, file: str) -> str:
    """Returns why devices could not install this version from a file of this name, empty if they can."""
    kind, version = target.installer, target.version
    if version == _RESERVED.get(kind):
        return f"the installer {kind} uses the name {version!r} itself: take another version"
    form = _VERSIONS.get(kind)
    if form is not None and form[0].fullmatch(version) is None:
        return f"{version!r} is never the version of a package of {kind}: it is {form[1]}"
    suffix = _SUFFIXES.get(kind, "")
    if not file.endswith(suffix):
        return f"{kind} installs only files whose names end in {suffix}"
    return ""


_SCHEMES: Final[Mapping[str, str]] = {
    InstallerKind.APT: "deb",
    InstallerKind.DNF: "rpm",
    InstallerKind.APK: "apk",
    InstallerKind.OPKG: "opkg",
}


def requirement_fault(target: UpdateTarget, published: Iterable[UpdateTarget]) -> str:
    """Returns which requirement asks for an order that versions of another update do not have, empty if none does."""
    installers = {one.name: one.installer for one in published} | {target.name: target.installer}
    for requirement in target.requires:
        name = requirement.what.partition(":")[2]
        if requirement.is_ordering and name in installers and not _has_order(requirement.value, installers[name]):
            return (
                f"{requirement}: {requirement.value!r} has no order among the versions that {installers[name]} installs"
            )
    return ""


def is_older(one: str, other: str, installer: str) -> bool | None:
    """Whether one version is before the other among those of an installer; None where no order is defined."""
    scheme = _SCHEMES.get(installer)
    if scheme is None:
        order = compare_plain_versions(one, other)
        return None if order is None else order < 0
    try:
        return is_older_version(one, other, scheme)
    except ValueError:
        return None


def _has_order(version: str, installer: InstallerKind) -> bool:
    return has_plain_order(version) if installer not in _SCHEMES else is_older(version, version, installer) is not None
