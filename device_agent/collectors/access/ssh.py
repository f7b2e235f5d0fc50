"""What the SSH server lets in: as it resolves its own settings where it can be asked, else as its files say."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.access import dropbear
from device_agent.collectors.base import GapRecorder, Section, error_reason
from device_agent.errors import NotApplicableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import MAX_FILES, files_in, text_of
from device_agent.host.system import System

_CONFIG: Final = "/etc/ssh/sshd_config"
_PROGRAMS: Final = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd")
_SECONDS: Final = 10.0
_MAX_DEPTH: Final = 16  # files that include each other; sshd's own limit
_MAX_OVERRIDES: Final = 1024
# What current versions do when no file says; a distribution's own build may differ, which is why `resolved` is false.
_DEFAULTS: Final = {
    "passwordauthentication": "yes",
    "kbdinteractiveauthentication": "yes",
    "permitrootlogin": "prohibit-password",
    "permitemptypasswords": "no",
    "maxauthtries": "6",
    "logingracetime": "120",
    "x11forwarding": "no",
}
_OLD_NAMES: Final = {"challengeresponseauthentication": "kbdinteractiveauthentication"}
_ROOT: Final = {"without-password": "prohibit-password"}
_ROOT_WORDS: Final = frozenset({"yes", "no", "prohibit-password", "forced-commands-only"})
_LOOSENING: Final = frozenset(_DEFAULTS) - {"logingracetime"}
_ALGORITHMS: Final = ("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
# Broken or too short today: SHA-1 and MD5, CBC and stream ciphers of old, DSA, small groups.
_WEAK: Final = re.compile(
    r"^(3des-cbc|.*-cbc(@.*)?|arcfour.*|blowfish.*|cast128.*|hmac-md5.*|hmac-sha1.*|umac-64.*|hmac-ripemd.*"
    r"|diffie-hellman-group1-sha1|diffie-hellman-group14-sha1|diffie-hellman-group-exchange-sha1|rsa1024-.*"
    r"|ssh-rsa(-cert-v0[01]@openssh\.com)?|ssh-dss.*)$"
)
_TIME: Final = re.compile(r"(\d{1,9})([smhdw]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DIRECTIVE: Final = re.compile(r"^([A-Za-z0-9]+)[\s=]+(.*)$")


@dataclass(slots=True)
class SshdSettings:
    """What the files say: the first value of a keyword counts, as in sshd itself."""

    values: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


def collect(system: System) -> Section:
    """The `ssh` section.

    Raises:
        NotApplicableError: no SSH server is installed.
        CannotTellError: the files of the one that is cannot be read.
    """
    has_openssh = system.path(_CONFIG).exists() or any(system.path(place).exists() for place in _PROGRAMS)
    if not has_openssh:
        section = dropbear.collect(system)
        if section is None:
            raise NotApplicableError("no SSH server is installed")
        return section
    gaps = GapRecorder()
    said = SshdSettings()
    with gaps.capture("sshd_config"):
        read_config(system, system.path(_CONFIG), said)
    resolved = _ask(system, gaps)
    values = resolved if resolved is not None else {**_DEFAULTS, **said.values}
    if resolved is None and gaps.as_list() and not said.values:
        values = {}  # the defaults of a server whose settings are closed to us would be made up
    ports = resolved["port"].split() if resolved and "port" in resolved else said.ports or (["22"] if values else [])
    if resolved is None:
        gaps.add("weak_algorithms", "only the server itself knows the algorithms of its version")
    return {
        "state": "ok",
        "server": "openssh",
        "resolved": resolved is not None,
        "ports": sorted({int(port) for port in ports if port.isdecimal() and 0 < int(port[:6]) <= 0xFFFF}),
        **section_of(values),
        "weak_algorithms": _weak(resolved) if resolved is not None else None,
        "overrides": said.overrides,
        "gaps": gaps.as_list(),
    }


def section_of(values: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the section from keywords in lower case and their values."""
    root = _ROOT.get(values.get("permitrootlogin", "").lower(), values.get("permitrootlogin", "").lower())
    return {
        "password_login": _flag(values.get("passwordauthentication")),
        "interactive_login": _flag(values.get("kbdinteractiveauthentication")),
        "root_login": root if root in _ROOT_WORDS else "unknown",
        "empty_passwords": _flag(values.get("permitemptypasswords")),
        "max_auth_tries": _number(values.get("maxauthtries")),
        "login_grace_seconds": seconds_of(values.get("logingracetime", "")),
        "x11_forwarding": _flag(values.get("x11forwarding")),
    }


def _ask(system: System, gaps: GapRecorder) -> dict[str, str] | None:
    program = shutil.which("sshd") or next((place for place in _PROGRAMS if Path(place).exists()), None)
    if not system.is_live or program is None:
        return None
    if not system.is_root_user:
        gaps.add("resolved", "needs root")
        return None
    try:
        return parse_resolved(run([program, "-T"], seconds=_SECONDS).out)
    except ExecuteError as e:
        gaps.add("resolved", error_reason(e))
        return None


def parse_resolved(text: str) -> dict[str, str]:
    """Read `sshd -T`: a keyword in lower case and its value in each line; ports are gathered."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "port":
            values[key] = f"{values.get(key, '')} {value}".strip()
        elif key:
            values.setdefault(key.lower(), value)
    return values


def read_config(system: System, file: Path, said: SshdSettings, depth: int = 0) -> None:
    """Read a file of settings and those it includes; what stands inside Match blocks goes to `overrides`.

    Raises:
        OSError: a file is there and cannot be read.
    """
    match = ""  # a Match block ends with its file
    for line in text_of(file).splitlines():
        directive = _DIRECTIVE.match(line.strip())  # a comment is none
        if directive is None:
            continue
        keyword, value = directive[1].lower(), directive[2]
        keyword = _OLD_NAMES.get(keyword, keyword)
        if keyword == "match":
            match = "" if value.lower() == "all" else f"Match {value}"
        elif match:
            if keyword in _LOOSENING and len(said.overrides) < _MAX_OVERRIDES:
                said.overrides.append(f"{match}: {keyword} {value}")
            elif keyword == "include" and len(said.overrides) < _MAX_OVERRIDES:
                said.overrides.append(f"{match}: include {value}")
        elif keyword == "include":
            if depth < _MAX_DEPTH:
                for included in _included(system, value):
                    read_config(system, included, said, depth + 1)
        elif keyword == "port":
            said.ports.append(value.strip('"'))
        else:
            said.values.setdefault(keyword, value.strip('"'))


def _included(system: System, value: str) -> list[Path]:
    found: list[Path] = []
    for word in value.split():
        pattern = word.strip('"')
        place = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
        folder, _, name = place.rpartition("/")
        if name and "*" not in folder:
            found += files_in(system.path(folder or "/"), name)
    return found[:MAX_FILES]


def _weak(values: Mapping[str, str]) -> list[str]:
    names = {name for key in _ALGORITHMS for name in values.get(key, "").split(",")}
    return sorted(name for name in names if _WEAK.match(name))


def _flag(value: str | None) -> bool | None:
    return {"yes": True, "no": False}.get((value or "").lower())


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() and len(value) < 7 else None


def seconds_of(text: str) -> int | None:
    """Seconds of a time as sshd writes it (`120`, `2m`, `1h30m`); None when it is none, or beyond what is sensible."""
    if not text or len(text) > 32 or not re.fullmatch(f"(?:{_TIME.pattern})+", text, re.IGNORECASE):
        return None
    total = sum(int(number) * _UNITS[unit.lower()] for number, unit in _TIME.findall(text))
    return total if total <= 1_000_000 else None
