"""Whether SELinux or AppArmor confines programs: mode, policy, profiles, recent refusals."""

import re
import time
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import GapRecorder
from device_agent.collectors.system import mac_denials
from device_agent.errors import NotApplicableError
from device_agent.host.files import settings_of, text_of
from device_agent.host.system import System

_CONFIG: Final = "/etc/selinux/config"
_ENFORCE: Final = "/sys/fs/selinux/enforce"
_APPARMOR: Final = "/sys/module/apparmor/parameters/enabled"
_PROFILES: Final = "/sys/kernel/security/apparmor/profiles"
_LSM: Final = "/sys/kernel/security/lsm"
_MAX_BYTES: Final = 1024 * 1024  # of the list of profiles
_MODE: Final = re.compile(r"\((enforce|kill|complain|unconfined|prompt|mixed)\)$")
_MODES: Final = {"1": "enforcing", "0": "permissive"}
_WORDS: Final = frozenset({"enforcing", "permissive", "disabled"})


def collect(system: System) -> Section:
    """The `mac` section.

    Raises:
        NotApplicableError: the kernel has neither.
    """
    gaps = GapRecorder()
    if system.path(_ENFORCE).exists():
        section = _selinux(system, gaps)
    elif text_of(system.path(_APPARMOR)).strip() == "Y":
        section = _apparmor(system, gaps)
    elif system.path(_CONFIG).is_file():
        section = {"system": "selinux", "mode": "disabled", **_configured(system, gaps)}
    elif system.path(_APPARMOR).exists():
        section = {"system": "apparmor", "mode": "disabled"}
    else:
        modules = text_of(system.path(_LSM)).strip()
        told = f"the kernel has only {modules}" if modules else "the kernel has neither SELinux nor AppArmor"
        raise NotApplicableError(told)
    section["denials"] = None
    if section["mode"] != "disabled":
        with gaps.told("denials"):
            section["denials"] = mac_denials.count(system, time.time())
    return {"state": "ok", **section, "gaps": gaps.listed()}


def _configured(system: System, gaps: GapRecorder) -> dict[str, Any]:
    word = policy = ""
    with gaps.told("configured"):
        values = settings_of(text_of(system.path(_CONFIG)))
        word, policy = values.get("SELINUX", "").lower(), values.get("SELINUXTYPE", "")
    return {"configured": word if word in _WORDS else "unknown", "policy": policy}


def _selinux(system: System, gaps: GapRecorder) -> dict[str, Any]:
    mode = "unknown"
    with gaps.told("mode"):
        mode = _MODES.get(text_of(system.path(_ENFORCE)).strip(), "unknown")
    return {"system": "selinux", "mode": mode, **_configured(system, gaps)}


def _apparmor(system: System, gaps: GapRecorder) -> dict[str, Any]:
    section: dict[str, Any] = {"system": "apparmor", "mode": "unknown", "policy": ""}
    section["enforced_profiles"] = section["complaining_profiles"] = None
    with gaps.told("enforced_profiles"):
        path = system.path(_PROFILES)
        if not path.exists():
            gaps.add("enforced_profiles", "the list of profiles is not there: securityfs is not mounted")
            return section
        counts = count_profiles(text_of(path, _MAX_BYTES))
        section["enforced_profiles"] = counts["enforce"] + counts["kill"]
        section["complaining_profiles"] = counts["complain"]
        # Without a profile in force it is on and holds nobody.
        section["mode"] = "enforcing" if section["enforced_profiles"] else "permissive"
    return section


def count_profiles(text: str) -> dict[str, int]:
    """Profiles by mode in the kernel's list."""
    counts = dict.fromkeys(("enforce", "kill", "complain", "unconfined", "prompt", "mixed"), 0)
    for line in text.splitlines():
        if match := _MODE.search(line.strip()):
            counts[match[1]] += 1
    return counts
