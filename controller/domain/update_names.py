"""Versions and file names that an installer on a device cannot install; found when an update is published. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from schemas.updates import InstallerKind, UpdateTarget

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
