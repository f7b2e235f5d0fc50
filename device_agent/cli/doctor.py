"""`cordon-agent doctor`: the state, reason and duration of every section, and the programs that collectors use."""

import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from device_agent import __version__
from device_agent.collectors.base import Collector, Section
from device_agent.collectors.scan import Scanner
from device_agent.domain.report_limits import normalise_findings
from device_agent.host.system import System

# Programs that collectors run in addition to reading files.
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


@dataclass(frozen=True, slots=True)
class SectionDiagnosis:
    """The result of one section; `missing` says which facts an available section lacks."""

    section: str
    state: str
    reason: str
    missing: tuple[str, ...]
    seconds: float


def diagnose(system: System, collectors: Mapping[str, Collector]) -> tuple[SectionDiagnosis, ...]:
    """Runs every collector as a scan does; returns a diagnosis for each section."""
    durations: dict[str, float] = {}
    timed = {name: _run_timed(name, collector, durations) for name, collector in collectors.items()}
    sections = normalise_findings(Scanner(system, timed).scan()).sections
    return tuple(_diagnosis(name, sections[name], durations.get(name, 0.0)) for name in sorted(sections))


def as_text(system: System, diagnoses: tuple[SectionDiagnosis, ...], warnings: Sequence[str] = ()) -> str:
    """Returns the diagnoses for people; `warnings` are about the configuration."""
    width = max(len(diagnosis.section) for diagnosis in diagnoses)
    user = "as root" if system.is_root_user else "not as root"
    lines = [f"cordon-agent {__version__} on {platform.system()} {platform.release()}, {user}", ""]
    for item in diagnoses:
        lines.append(f"{item.section:<{width}}  {item.state:<13}  {item.seconds:5.2f} s  {item.reason}".rstrip())
        lines += [f"{'':<{width}}  {'':<13}           {text}" for text in item.missing]
    count = sum(diagnosis.state == "ok" for diagnosis in diagnoses)
    lines += ["", f"{count} of {len(diagnoses)} sections found."]
    need_root = [item.section for item in diagnoses if "needs root" in " ".join((item.reason, *item.missing))]
    if need_root and not system.is_root_user:
        lines.append(f"More facts are available as root: {', '.join(need_root)}.")
    present, absent = _programs()
    lines += [f"Programs used: {', '.join(present) or 'none'}.", f"Not installed: {', '.join(absent)}."]
    lines += [f"Configuration: {warning}." for warning in warnings]
    return "\n".join(lines) + "\n"


def as_json(system: System, diagnoses: tuple[SectionDiagnosis, ...], warnings: Sequence[str] = ()) -> str:
    """Returns the diagnoses for programs."""
    present, absent = _programs()
    sections = [
        {
            "section": item.section,
            "state": item.state,
            "reason": item.reason,
            "partly": item.missing,
            "seconds": item.seconds,
        }
        for item in diagnoses
    ]
    content = {
        "agent": __version__,
        "root": system.is_root_user,
        "doubts": list(warnings),
        "sections": sections,
        "programs": {"present": present, "absent": absent},
    }
    return json.dumps(content, indent=2) + "\n"


def _run_timed(name: str, collector: Collector, durations: dict[str, float]) -> Collector:
    def collect(system: System) -> Section:
        started = time.monotonic()
        try:
            return collector(system)
        finally:
            durations[name] = time.monotonic() - started

    return collect


def _diagnosis(name: str, section: Mapping[str, Any], seconds: float) -> SectionDiagnosis:
    missing = [
        f"{gap['fact']}: {gap['reason']}" + (f" ({gap['source']})" if gap.get("source") else "")
        for gap in section.get("gaps", ())
    ]
    missing += section.get("unreadable", ())
    if section.get("truncated"):
        missing.append(f"{section['truncated']} entries do not fit a report")
    monitors = [monitor for monitor in section.get("monitors", ()) if monitor.get("reason")]
    missing += [f"{monitor['monitor']}: {monitor['path']}: {monitor['reason']}" for monitor in monitors]
    reason = str(section.get("reason", ""))
    return SectionDiagnosis(name, str(section["state"]), reason, tuple(missing), round(seconds, 3))


def _programs() -> tuple[list[str], list[str]]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    present = {name for name in _PROGRAMS if shutil.which(name, path=path)}
    return sorted(present), sorted(set(_PROGRAMS) - present)
