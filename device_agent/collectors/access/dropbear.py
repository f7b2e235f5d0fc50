"""The `ssh` section of dropbear, a small SSH server, from its arguments in the distribution's configuration files."""

import re
import shlex
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host.files import parse_key_values, read_text
from device_agent.host.system import System

_PROGRAMS: Final = ("/usr/sbin/dropbear", "/usr/bin/dropbear", "/bin/dropbear")
_UCI: Final = "/etc/config/dropbear"
# Debian, Alpine: a file of shell variables, and the variable that holds the arguments.
_ARGUMENTS: Final = (("/etc/default/dropbear", "DROPBEAR_EXTRA_ARGS"), ("/etc/conf.d/dropbear", "DROPBEAR_OPTS"))
_DEFAULT_TRIES: Final = 10
_UCI_OPTION: Final = re.compile(r"^[ \t]*option[ \t]+(\S+)[ \t]+['\"]?([^'\"\n]*)['\"]?[ \t]*$", re.MULTILINE)
_UCI_SECTION: Final = re.compile(r"^[ \t]*config[ \t]+dropbear\b.*$", re.MULTILINE)
_OFF: Final = frozenset({"off", "0", "no", "false", "disabled"})


def collect(system: System) -> Section | None:
    """Collects the `ssh` section; returns None when dropbear is not installed."""
    if not any(system.path(program).exists() for program in _PROGRAMS):
        return None
    section = SectionBuilder(server="dropbear", resolved=False, x11_forwarding=False, interactive_login=False)
    with section.capture("ports", "password_login", "root_login", "max_auth_tries"):
        uci = read_text(system.path(_UCI))
        section.set(**(_from_uci(uci) if uci else _from_arguments(_arguments(system))))
    section.gap("empty_passwords", "weak_algorithms", reason="dropbear does not report it")
    return section.build()


def _from_uci(text: str) -> dict[str, Any]:
    """Parses OpenWrt's configuration: a block for each server; the most permissive one counts."""
    blocks = [dict(_UCI_OPTION.findall(part)) for part in _UCI_SECTION.split(text)[1:]]
    enabled = [block for block in blocks if block.get("enable", "1") not in _OFF]
    passwords = [block for block in enabled if block.get("PasswordAuth", "on") not in _OFF]
    root = [block for block in enabled if block.get("RootLogin", "on") not in _OFF]
    root_passwords = [block for block in root if block in passwords and block.get("RootPasswordAuth", "on") not in _OFF]
    tries = [_number(block.get("MaxAuthTries", "")) or _DEFAULT_TRIES for block in enabled]
    return {
        "ports": _ports([block.get("Port", "22") for block in enabled]),
        "password_login": bool(passwords),
        "root_login": "yes" if root_passwords else "prohibit-password" if root else "no",
        "max_auth_tries": max(tries, default=_DEFAULT_TRIES),
    }


def _arguments(system: System) -> list[str]:
    arguments: list[str] = []
    for path, name in _ARGUMENTS:
        values = parse_key_values(read_text(system.path(path)))
        if port := values.get("DROPBEAR_PORT", "").strip("\"'"):
            arguments += ["-p", port]
        arguments += shlex.split(values.get(name, "").strip("\"'"))
    return arguments


def _from_arguments(arguments: list[str]) -> dict[str, Any]:
    flags, ports, tries = set[str](), list[str](), _DEFAULT_TRIES
    rest = iter(arguments)
    for argument in rest:
        if argument[:2] in {"-p", "-T"}:
            value = argument[2:] or next(rest, "")
            if argument[1] == "p":
                ports.append(value.rpartition(":")[2])
            else:
                tries = _number(value) or tries
        elif argument.startswith("-"):
            flags |= set(argument[1:])
    return {
        "ports": _ports(ports or ["22"]),
        "password_login": "s" not in flags,
        "root_login": "no" if "w" in flags else "prohibit-password" if flags & {"g", "s"} else "yes",
        "max_auth_tries": tries,
    }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _ports(texts: list[str]) -> list[int]:
    return sorted({port for text in texts if 0 < (port := _number(text.rpartition(":")[2])) <= 0xFFFF})
