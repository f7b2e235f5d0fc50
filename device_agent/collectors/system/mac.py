"""Mandatory access control (section `mac`): mode, policy, profiles and recent denials of SELinux or AppArmor."""

import re
import shutil
import time
from collections.abc import Iterable
from typing import Final

from device_agent.collectors.access.failed_logins import WINDOW_SECONDS, time_of
from device_agent.collectors.base import Section, SectionBuilder, round_to_magnitude
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.execute import run
from device_agent.host.files import list_files, parse_key_values, read_tail, read_text
from device_agent.host.system import System

_CONFIG: Final = "/etc/selinux/config"
_ENFORCE: Final = "/sys/fs/selinux/enforce"
_APPARMOR: Final = "/sys/module/apparmor/parameters/enabled"
_PROFILES: Final = "/sys/kernel/security/apparmor/profiles"
_LSM: Final = "/sys/kernel/security/lsm"
_MAX_PROFILES_BYTES: Final = 1024 * 1024
_PROFILE_MODE: Final = re.compile(r"\((enforce|kill|complain|unconfined|prompt|mixed)\)$")
_ENFORCE_VALUES: Final = {"1": "enforcing", "0": "permissive"}
_IN_FORCE: Final = "what the kernel enforces"
# What started the kernel, and what starts it next.
_KERNEL_OPTIONS: Final = (
    *("/proc/cmdline", "/etc/kernel/cmdline", "/etc/default/grub", "/boot/cmdline.txt", "/boot/firmware/cmdline.txt"),
)
_CONFIG_MODES: Final = ("enforcing", "permissive", "disabled")

_AUDIT_LOG: Final = "/var/log/audit/audit.log"
_KERNEL_LOGS: Final = ("/var/log/kern.log", "/var/log/syslog", "/var/log/messages")
_MAX_LOG_BYTES: Final = 1024 * 1024  # from the end of a log
_MAX_JOURNAL_LINES: Final = 5000
_JOURNAL_SECONDS: Final = 15.0
_DENIED: Final = re.compile(r"avc:\s+denied|apparmor=\"DENIED\"")
_AUDIT_TIME: Final = re.compile(r"audit\((\d{9,11})\.\d+:\d+\)")


def collect(system: System) -> Section:
    """Collects the `mac` section.

    Raises:
        NotApplicableError: the kernel has neither SELinux nor AppArmor.
        FactsUnavailableError: an image that configures neither.
    """
    section = SectionBuilder()
    if system.is_image:
        return _of_image(system, section)
    if system.path(_ENFORCE).exists():
        section.set(system="selinux", mode="unknown")
        _add_selinux_config(system, section)
        with section.capture("mode", source=_ENFORCE):
            section.set(mode=_ENFORCE_VALUES.get(read_text(system.path(_ENFORCE)).strip(), "unknown"))
    elif read_text(system.path(_APPARMOR)).strip() == "Y":
        section.set(system="apparmor", mode="unknown", policy="")
        _add_apparmor(system, section)
    elif system.path(_CONFIG).is_file():
        section.set(system="selinux", mode="disabled")
        _add_selinux_config(system, section)
    elif system.path(_APPARMOR).exists():
        section.set(system="apparmor", mode="disabled")
    else:
        modules = read_text(system.path(_LSM)).strip()
        reason = f"the kernel has only {modules}" if modules else "the kernel has neither SELinux nor AppArmor"
        raise NotApplicableError(reason)
    if section["mode"] != "disabled":
        with section.capture("denials"):
            section.set(denials=round_to_magnitude(_denials(system, time.time())))
    return section.build()


def _of_image(system: System, section: SectionBuilder) -> Section:
    """Returns what is configured: which modules the kernel starts with, and what they enforce, only it knows."""
    if not system.path(_CONFIG).is_file():
        system.require_living(_IN_FORCE)
    section.set(system="selinux")
    _add_selinux_config(system, section)
    section.gap("mode", "denials", reason=f"needs a living system: {_IN_FORCE}")
    return section.build()


def _add_selinux_config(system: System, section: SectionBuilder) -> None:
    with section.capture("configured", "policy", source=_CONFIG):
        values = parse_key_values(read_text(system.path(_CONFIG)))
        # As libselinux, which compares the beginning of the value: a comment may follow it.
        mode = next((mode for mode in _CONFIG_MODES if values.get("SELINUX", "").lower().startswith(mode)), "")
        policy = values.get("SELINUXTYPE", "").split()
        section.set(configured=_of_kernel(system, mode or "unknown"), policy=policy[0] if policy else "")


def _of_kernel(system: System, mode: str) -> str:
    """Returns the mode after the next boot: options of the kernel take precedence over the file, except `disabled`."""
    files = [system.path(path) for path in _KERNEL_OPTIONS]
    files += list_files(system.path("/boot/loader/entries"), "*.conf")
    words = {word.strip("\"'") for file in files for word in _kernel_words(read_text(file))}
    if "selinux=0" in words or mode == "disabled":
        return "disabled"
    if "enforcing=0" in words:
        return "permissive"
    return "enforcing" if "enforcing=1" in words else mode


def _kernel_words(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return " ".join(lines).replace('"', " ").replace("'", " ").split()


def _add_apparmor(system: System, section: SectionBuilder) -> None:
    with section.capture("enforced_profiles", "complaining_profiles", source=_PROFILES):
        path = system.path(_PROFILES)
        if not path.exists():
            raise FactsUnavailableError("the list of profiles is missing: securityfs is not mounted")
        counts = count_profiles(read_text(path, _MAX_PROFILES_BYTES))
        enforced = counts["enforce"] + counts["kill"]
        # A few enforced profiles beside many that only complain confine next to nothing.
        section.set(
            enforced_profiles=enforced,
            complaining_profiles=counts["complain"],
            mode="enforcing" if enforced > counts["complain"] else "permissive",
        )


def count_profiles(text: str) -> dict[str, int]:
    """Counts the profiles in the kernel's list by mode."""
    counts = dict.fromkeys(("enforce", "kill", "complain", "unconfined", "prompt", "mixed"), 0)
    for line in text.splitlines():
        if match := _PROFILE_MODE.search(line.strip()):
            counts[match[1]] += 1
    return counts


def _denials(system: System, now: float) -> int:
    """Counts the denials of the last day in the first available log.

    Raises:
        FactsUnavailableError: there is no log that would hold them.
        OSError, ExecuteError: the log cannot be read.
    """
    if system.path(_AUDIT_LOG).exists():
        return count_denials(read_tail(system.path(_AUDIT_LOG), _MAX_LOG_BYTES).splitlines(), now)
    if system.is_live and shutil.which("journalctl") and system.path("/run/systemd/journal").is_dir():
        if not system.is_root_user:
            raise FactsUnavailableError("needs root")
        argv = ["journalctl", "-q", "-k", "--no-pager", "-o", "short-iso", "--since=-24h", f"-n{_MAX_JOURNAL_LINES}"]
        return count_denials(run(argv, seconds=_JOURNAL_SECONDS).stdout.splitlines(), now)
    for log in _KERNEL_LOGS:
        if system.path(log).exists():
            return count_denials(read_tail(system.path(log), _MAX_LOG_BYTES).splitlines(), now)
    raise FactsUnavailableError("there is no audit log, kernel log or journal")


def count_denials(lines: Iterable[str], now: float) -> int:
    """Counts denials within the window; a line without a readable time does not count."""
    count = 0
    for line in lines:
        if not _DENIED.search(line[:4096]):
            continue
        audit_time = _AUDIT_TIME.search(line[:4096])
        at = float(audit_time[1]) if audit_time else time_of(line, now)
        count += at is not None and now - WINDOW_SECONDS <= at <= now + 3600
    return count
