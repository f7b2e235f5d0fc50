"""The SSH server's settings (section `ssh`): as `sshd -T` resolves them where it can run, else from its files."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.access import dropbear
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.errors import NotApplicableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import MAX_FILES, list_files, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_CONFIG: Final = "/etc/ssh/sshd_config"
_PROGRAMS: Final = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd")
_SECONDS: Final = 10.0
_MAX_DEPTH: Final = 16  # nested includes, as in sshd
_MAX_OVERRIDES: Final = 1024
# Defaults of current versions; a distribution's build may differ, which is why `resolved` is false.
_DEFAULTS: Final = {
    "passwordauthentication": "yes",
    "kbdinteractiveauthentication": "yes",
    "permitrootlogin": "prohibit-password",
    "permitemptypasswords": "no",
    "maxauthtries": "6",
    "logingracetime": "120",
    "x11forwarding": "no",
}
_RENAMED: Final = {"challengeresponseauthentication": "kbdinteractiveauthentication"}
_RENAMED_ROOT_LOGIN: Final = {"without-password": "prohibit-password"}
_ROOT_LOGIN_VALUES: Final = frozenset({"yes", "no", "prohibit-password", "forced-commands-only"})
_MATCH_KEYWORDS: Final = frozenset(_DEFAULTS) - {"logingracetime"}  # reported when a Match block sets them
_ALGORITHMS: Final = ("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms")
# Broken or too short: SHA-1 and MD5, CBC and old stream ciphers, DSA, small groups.
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
    """The settings in the files; the first value of a keyword counts, as in sshd."""

    values: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


def collect(system: System) -> Section:
    """Collects the `ssh` section.

    Raises:
        NotApplicableError: no SSH server is installed.
    """
    has_openssh = system.path(_CONFIG).exists() or any(system.path(program).exists() for program in _PROGRAMS)
    if not has_openssh:
        of_dropbear = dropbear.collect(system)
        if of_dropbear is None:
            raise NotApplicableError("no SSH server is installed")
        return of_dropbear
    gaps = GapRecorder()
    settings = SshdSettings()
    with gaps.capture(_CONFIG):
        read_config(system, system.path(_CONFIG), settings)
    resolved, reason = _run_sshd_dump(system)
    values = resolved if resolved is not None else {**_DEFAULTS, **settings.values}
    ports = settings.ports or ["22"]
    if resolved and "port" in resolved:
        ports = resolved["port"].split()
    section = SectionBuilder(
        server="openssh",
        resolved=resolved is not None,
        ports=sorted({int(port) for port in ports if port.isdecimal() and 0 < int(port[:6]) <= 0xFFFF}),
        **section_of(values),
        overrides=settings.overrides,
    )
    section.add_gaps(gaps.gaps, "overrides", *(() if resolved else ("ports", *section_of({}))))
    if resolved is None:
        section.gap("weak_algorithms", reason=f"only the server itself knows the algorithms of its version{reason}")
    else:
        section.set(weak_algorithms=weak_algorithms(resolved))
    return section.build()


def section_of(values: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of the section from the values by keyword (lower case)."""
    root_login = values.get("permitrootlogin", "").lower()
    root_login = _RENAMED_ROOT_LOGIN.get(root_login, root_login)
    return {
        "password_login": _flag(values.get("passwordauthentication")),
        "interactive_login": _flag(values.get("kbdinteractiveauthentication")),
        "root_login": root_login if root_login in _ROOT_LOGIN_VALUES else "unknown",
        "empty_passwords": _flag(values.get("permitemptypasswords")),
        "max_auth_tries": _number(values.get("maxauthtries")),
        "login_grace_seconds": seconds_of(values.get("logingracetime", "")),
        "x11_forwarding": _flag(values.get("x11forwarding")),
    }


def _run_sshd_dump(system: System) -> tuple[dict[str, str] | None, str]:
    """Returns the settings that `sshd -T` prints, or None and why it could not be asked."""
    program = shutil.which("sshd") or next((path for path in _PROGRAMS if Path(path).exists()), None)
    if not system.is_live or program is None:
        return None, ""
    if not system.is_root_user:
        return None, "; sshd -T needs root"
    try:
        return parse_resolved(run([program, "-T"], seconds=_SECONDS).stdout), ""
    except ExecuteError as e:
        return None, f"; {e}"


def parse_resolved(text: str) -> dict[str, str]:
    """Parses the output of `sshd -T`: values by keyword (lower case), several ports joined with spaces."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "port":
            values[key] = f"{values.get(key, '')} {value}".strip()
        elif key:
            values.setdefault(key.lower(), value)
    return values


def read_config(system: System, file: Path, settings: SshdSettings, depth: int = 0) -> None:
    """Reads a file and its includes into `settings`; keywords inside of Match blocks are added to `overrides`.

    Raises:
        OSError: a file exists and cannot be read.
    """
    match = ""  # a Match block ends with its file
    for line in read_text(file).splitlines():
        directive = _DIRECTIVE.match(line.strip())
        if directive is None:
            continue
        keyword, value = directive[1].lower(), directive[2]
        keyword = _RENAMED.get(keyword, keyword)
        if keyword == "match":
            match = "" if value.lower() == "all" else f"Match {value}"
        elif match:
            if keyword in {*_MATCH_KEYWORDS, "include"} and len(settings.overrides) < _MAX_OVERRIDES:
                settings.overrides.append(f"{match}: {keyword} {value}")
        elif keyword == "include":
            if depth < _MAX_DEPTH:
                for included in _included_files(system, value):
                    read_config(system, included, settings, depth + 1)
        elif keyword == "port":
            settings.ports.append(value.strip('"'))
        else:
            settings.values.setdefault(keyword, value.strip('"'))


def _included_files(system: System, value: str) -> list[Path]:
    files: list[Path] = []
    for word in value.split():
        pattern = word.strip('"')
        path = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
        folder, _, name = path.rpartition("/")
        if name and "*" not in folder:
            files += list_files(system.path(folder or "/"), name)
    return files[:MAX_FILES]


def weak_algorithms(values: Mapping[str, str]) -> list[str]:
    """Returns the weak ciphers, MACs, key exchanges and host keys among resolved settings."""
    names = {name for key in _ALGORITHMS for name in values.get(key, "").split(",")}
    return sorted(name for name in names if _WEAK.match(name))


def _flag(value: str | None) -> bool | None:
    return {"yes": True, "no": False}.get((value or "").lower())


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() and len(value) < 7 else None


def seconds_of(text: str) -> int | None:
    """Parses a time in sshd's format (`120`, `2m`, `1h30m`); returns None when malformed or above 1,000,000 s."""
    if not text or len(text) > 32 or not re.fullmatch(f"(?:{_TIME.pattern})+", text, re.IGNORECASE):
        return None
    total = sum(int(number) * _UNITS[unit.lower()] for number, unit in _TIME.findall(text))
    return total if total <= 1_000_000 else None
