"""What has to be so on this device before an update is put in place: class, hardware, requirements, room."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent import __version__
from device_agent.errors import FactsUnavailableError
from device_agent.host.os_release import collect as os_section
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from device_agent.updates.versions import compare
from schemas.updates import Requirement, UpdateRefusalCode, UpdateTarget

_MIB: Final = 1024 * 1024
SPARE_BYTES: Final = 16 * _MIB  # that stay free whatever is installed


def check_device(target: UpdateTarget, device_class: str, hardware: tuple[str, ...]) -> None:
    """Refuse what is meant for others (UpdateError)."""
    if not target.is_for(device_class, hardware):
        wanted = f"classes {', '.join(target.classes)}; hardware {', '.join(target.hardware) or 'any'}"
        have = f"class {device_class or 'none'}, hardware {', '.join(hardware) or 'none'}"
        raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"it is for {wanted}; this is {have}")


def check_requirements(target: UpdateTarget, system: System, folder: Path, installed: Mapping[str, str]) -> None:
    """Refuse what this device does not fulfil (UpdateError); `installed` are versions by name."""
    for requirement in target.requires:
        have = _value(requirement.what, system, folder, installed)
        if have is None:
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: cannot be found out here")
        if not holds(requirement, have):
            raise UpdateError(UpdateRefusalCode.PRECONDITION, f"{requirement}: here it is {have or 'nothing'}")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what does not fit (UpdateError)."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        text = f"{what} needs {needed // _MIB + 1} MiB and {SPARE_BYTES // _MIB} MiB to spare, {free // _MIB} are free"
        raise UpdateError(UpdateRefusalCode.NO_SPACE, text)


def holds(requirement: Requirement, have: str) -> bool:
    """Whether what is there fulfils it; what is not there fulfils only `!=`."""
    if not have:
        return requirement.op == "!="
    if requirement.op in {"==", "!="}:
        is_same = have == requirement.value or compare(have, requirement.value) == 0
        return is_same if requirement.op == "==" else not is_same
    order = compare(have, requirement.value)
    return order >= 0 if requirement.op == ">=" else order < 0


def _value(what: str, system: System, folder: Path, installed: Mapping[str, str]) -> str | None:
    match what.partition(":"):
        case ("installed", _, name):
            return installed.get(name, "")
        case ("os", _, _):
            return _os(system, "id")
        case ("os_version", _, _):
            return _os(system, "version")
        case ("machine", _, _):
            return platform.machine()
        case ("agent", _, _):
            return __version__
        case ("free_mib", _, _):
            return str(shutil.disk_usage(folder).free // _MIB)
        case ("memory_mib", _, _):
            return str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB)
        case _:
            return None


def _os(system: System, key: str) -> str | None:
    try:
        return str(os_section(system).get(key, ""))
    except FactsUnavailableError:
        return None
