"""What the agent can and cannot see on this device, and why: every section with its state, its reason, and its time."""

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from device_agent import __version__
from device_agent.collectors.base import Collector
from device_agent.collectors.scan import Scanner
from device_agent.domain.report_limits import normalise_findings
from device_agent.host.system import System

# Programs that make a section richer, or possible at all, beside what is read from files.
_PROGRAMS: Final = (
    "apt-get",
    "aa-status",
    "auditctl",
    "dnf",
    "dpkg-query",
    "firewall-cmd",
    "getenforce",
    "iptables-save",
    "journalctl",
    "lynis",
    "nft",
    "openssl",
    "opkg",
    "oscap",
    "rpm",
    "sshd",
    "systemctl",
    "ufw",
)
_LISTS_OF_DOUBTS: Final = ("gaps", "problems", "unreadable")


@dataclass(frozen=True, slots=True)
class SectionDiagnosis:
    """One section: `partly` says what is missing of a section that was found."""

    section: str
    state: str
    reason: str
    partly: tuple[str, ...]
    seconds: float


def diagnose(system: System, collectors: Mapping[str, Collector]) -> tuple[SectionDiagnosis, ...]:
    """Run every collector as a scan would, and say how each one fared."""
    taken: dict[str, float] = {}
    timed = {name: _timed(name, collector, taken) for name, collector in collectors.items()}
    sections = normalise_findings(Scanner(system, timed).scan()).sections
    return tuple(_diagnosis(name, sections[name], taken.get(name, 0.0)) for name in sorted(sections))


def as_text(system: System, found: tuple[SectionDiagnosis, ...], doubts: Sequence[str] = ()) -> str:
    """For people; `doubts` are about the configuration."""
    width = max(len(one.section) for one in found)
    who = "as root" if system.is_root_user else "not as root"
    lines = [f"cordon-agent {__version__} on {platform.system()} {platform.release()}, {who}", ""]
    for one in found:
        lines.append(f"{one.section:<{width}}  {one.state:<13}  {one.seconds:5.2f} s  {one.reason}".rstrip())
        lines += [f"{'':<{width}}  {'':<13}           {doubt}" for doubt in one.partly]
    count = sum(one.state == "ok" for one in found)
    lines += ["", f"{count} of {len(found)} sections found."]
    needing = [one.section for one in found if "needs root" in " ".join((one.reason, *one.partly))]
    if needing and not system.is_root_user:
        lines.append(f"As root there would be more to see of: {', '.join(needing)}.")
    present, absent = _programs()
    lines += [f"Programs used, where they are: {', '.join(present) or 'none'}.", f"Not here: {', '.join(absent)}."]
    lines += [f"Configuration: {doubt}." for doubt in doubts]
    return "\n".join(lines) + "\n"


def as_json(system: System, found: tuple[SectionDiagnosis, ...], doubts: Sequence[str] = ()) -> str:
    """For programs."""
    present, absent = _programs()
    content = {
        "agent": __version__,
        "root": system.is_root_user,
        "doubts": list(doubts),
        "sections": [asdict(one) for one in found],
        "programs": {"present": present, "absent": absent},
    }
    return json.dumps(content, indent=2) + "\n"


def _timed(name: str, collector: Collector, taken: dict[str, float]) -> Collector:
    def collect(system: System) -> Mapping[str, Any]:
        started = time.monotonic()
        try:
            return collector(system)
        finally:
            taken[name] = time.monotonic() - started

    result: Callable[[System], Mapping[str, Any]] = collect
    return result


def _diagnosis(name: str, section: Mapping[str, Any], seconds: float) -> SectionDiagnosis:
    doubts = [str(doubt) for key in _LISTS_OF_DOUBTS for doubt in section.get(key, ())]
    if section.get("truncated"):
        doubts.append(f"{section['truncated']} entries do not fit a report")
    doubts += [
        f"{one['monitor']}: {one['path']}: {one['reason']}" for one in section.get("monitors", ()) if one.get("reason")
    ]
    return SectionDiagnosis(
        name, str(section["state"]), str(section.get("reason", "")), tuple(doubts), round(seconds, 3)
    )


def _programs() -> tuple[list[str], list[str]]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    there = {name for name in _PROGRAMS if shutil.which(name, path=path)}
    return sorted(there), sorted(set(_PROGRAMS) - there)
