"""What a device has to fulfil before an update is installed: class, hardware, requirements, free space."""

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from device_agent import __version__
from device_agent.errors import FactsUnavailableError
from device_agent.host.os_release import describe_os
from device_agent.host.packages import compare_package_versions
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from schemas.updates import InstallerKind, Requirement, UpdateRefusalCode, UpdateTarget
from schemas.version_order import compare_plain_versions

_MIB: Final = 1024 * 1024
SPARE_BYTES: Final = 16 * _MIB  # stay free after every installation
_PACKAGE_SCHEMES: Final[Mapping[InstallerKind | None, str]] = {
    InstallerKind.APT: "deb",
    InstallerKind.DNF: "rpm",
    InstallerKind.APK: "apk",
    InstallerKind.OPKG: "opkg",
}
Compare = Callable[[str, str], int | None]


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """The properties of this device that updates are checked against; `folder` has everything about updates."""

    device_class: str
    hardware: tuple[str, ...]
    ask_user: bool
    folder: Path
    system: System


def check_compatibility(target: UpdateTarget, device: DeviceProfile) -> None:
    """Refuses a target for another class or hardware (UpdateError)."""
    if not target.is_for(device.device_class, device.hardware):
        required = f"classes {', '.join(target.classes)}; hardware {', '.join(target.hardware) or 'any'}"
        actual = f"class {device.device_class or 'none'}, hardware {', '.join(device.hardware) or 'none'}"
        raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"it is for {required}; this is {actual}")


def check_requirements(
    target: UpdateTarget,
    device: DeviceProfile,
    installed: Mapping[str, str],
    installers: Mapping[str, InstallerKind],
) -> None:
    """Refuses a target whose requirements are not met (UpdateError); `installed` are versions by name."""
    for requirement in target.requires:
        actual = _value(requirement.what, device, installed)
        if actual is None:
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: cannot be determined here")
        if not is_satisfied(requirement, actual, _compare_of(requirement, installers)):
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: here it is {actual or 'nothing'}")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuses what does not fit on the disk (UpdateError); `needed` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        text = f"{what} needs {needed // _MIB + 1} MiB and {SPARE_BYTES // _MIB} MiB to spare, {free // _MIB} are free"
        raise UpdateError(UpdateRefusalCode.NO_SPACE, text)


def is_satisfied(requirement: Requirement, actual: str, compare: Compare) -> bool:
    """Returns whether the actual value meets a requirement; an empty one meets only `!=`.

    Raises:
        UpdateError: it asks for an order that the two values do not have.
    """
    if not actual:
        return requirement.op == "!="
    order = compare(actual, requirement.value)
    if requirement.op in {"==", "!="}:
        return (order == 0) is (requirement.op == "==")
    if order is None:
        text = f"{requirement}: here it is {actual}, and no order of the two is defined"
        raise UpdateError(UpdateRefusalCode.PRECONDITION, text)
    return order >= 0 if requirement.op == ">=" else order < 0


def _compare_of(requirement: Requirement, installers: Mapping[str, InstallerKind]) -> Compare:
    """Returns the comparison in the scheme that the values of a requirement are written in."""
    match requirement.what.partition(":"):
        case ("installed", _, name):
            scheme = _PACKAGE_SCHEMES.get(installers.get(name))
            return compare_plain_versions if scheme is None else partial(compare_package_versions, scheme)
        case ("os" | "machine", _, _):
            return lambda one, other: 0 if one == other else None
        case _:
            return compare_plain_versions


def _value(what: str, device: DeviceProfile, installed: Mapping[str, str]) -> str | None:
    match what.partition(":"):
        case ("installed", _, name):
            return installed.get(name, "")
        case ("os", _, _):
            return _os_field(device.system, "id")
        case ("os_version", _, _):
            return _os_field(device.system, "version")
        case ("machine", _, _):
            return platform.machine()
        case ("agent", _, _):
            return __version__
        case ("free_mib", _, _):
            return str(shutil.disk_usage(device.folder).free // _MIB)
        case ("memory_mib", _, _):
            return str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB)
        case _:
            return None


def _os_field(system: System, key: str) -> str | None:
    try:
        return str(describe_os(system).get(key, ""))
    except FactsUnavailableError:
        return None
