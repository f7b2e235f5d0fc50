"""What a device has to fulfil before an update is installed: class, hardware, requirements, free space."""

import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from device_agent import __version__
from device_agent.errors import FactsUnavailableError
from device_agent.host.os_release import describe_os
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from schemas.updates import Requirement, UpdateRefusalCode, UpdateTarget

_MIB: Final = 1024 * 1024
SPARE_BYTES: Final = 16 * _MIB  # stay free after every installation
_VERSION_PART: Final = re.compile(r"\d+|[A-Za-z]+|~")


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


def check_requirements(target: UpdateTarget, device: DeviceProfile, installed: Mapping[str, str]) -> None:
    """Refuses a target whose requirements are not met (UpdateError); `installed` are versions by name."""
    for requirement in target.requires:
        actual = _value(requirement.what, device, installed)
        if actual is None:
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: cannot be determined here")
        if not is_satisfied(requirement, actual):
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: here it is {actual or 'nothing'}")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuses what does not fit on the disk (UpdateError); `needed` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        text = f"{what} needs {needed // _MIB + 1} MiB and {SPARE_BYTES // _MIB} MiB to spare, {free // _MIB} are free"
        raise UpdateError(UpdateRefusalCode.NO_SPACE, text)


def is_satisfied(requirement: Requirement, actual: str) -> bool:
    """Returns whether the actual value meets a requirement; an empty one meets only `!=`."""
    if not actual:
        return requirement.op == "!="
    if requirement.op in {"==", "!="}:
        is_same = actual == requirement.value or compare_versions(actual, requirement.value) == 0
        return is_same if requirement.op == "==" else not is_same
    order = compare_versions(actual, requirement.value)
    return order >= 0 if requirement.op == ">=" else order < 0


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


def compare_versions(one: str, other: str) -> int:
    """Returns -1, 0 or 1; `1.10` is above `1.9`, `1.0~rc1` below `1.0`, `1.0` equal to `1.0.0`."""
    for left, right in zip_longest(_sort_keys(one), _sort_keys(other), fillvalue=(1, 0, "")):
        if left != right:
            return -1 if left < right else 1
    return 0


def _sort_keys(version: str) -> list[tuple[int, int, str]]:
    return [_sort_key(part) for part in _VERSION_PART.findall(version)]


def _sort_key(part: str) -> tuple[int, int, str]:
    if part == "~":
        return (-1, 0, "")
    # Letters sort before the end of a version (1.0rc1 < 1.0), and numbers after it; 0 equals the end.
    return (1, int(part), "") if part.isdigit() else (0, 0, part)
