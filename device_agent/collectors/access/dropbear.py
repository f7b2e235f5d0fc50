"""The settings of dropbear, the small SSH server, wherever distributions keep its arguments."""

import re
import shlex
from typing import Any, Final

from device_agent.collectors.base import GapRecorder
from device_agent.host.files import settings_of, text_of
from device_agent.host.system import System

_PROGRAMS: Final = ("/usr/sbin/dropbear", "/usr/bin/dropbear", "/bin/dropbear")
_UCI: Final = "/etc/config/dropbear"
# Debian, Alpine: a file of shell variables, and the one that holds the arguments.
_ARGUMENTS: Final = (("/etc/default/dropbear", "DROPBEAR_EXTRA_ARGS"), ("/etc/conf.d/dropbear", "DROPBEAR_OPTS"))
_DEFAULT_TRIES: Final = 10
_OPTION: Final = re.compile(r"^[ \t]*option[ \t]+(\S+)[ \t]+['\"]?([^'\"\n]*)['\"]?[ \t]*$", re.MULTILINE)
_SECTION: Final = re.compile(r"^[ \t]*config[ \t]+dropbear\b.*$", re.MULTILINE)
_OFF: Final = frozenset({"off", "0", "no", "false", "disabled"})


def collect(system: System) -> dict[str, Any] | None:
    """The `ssh` section of dropbear; None when it is not installed."""
    if not any(system.path(place).exists() for place in _PROGRAMS):
        return None
    gaps = GapRecorder()
    section: dict[str, Any] = {}
    with gaps.capture("settings"):
        uci = text_of(system.path(_UCI))
        section = _of_uci(uci) if uci else _of_arguments(_arguments(system))
    for field in ("empty_passwords", "weak_algorithms"):
        gaps.add(field, "dropbear does not tell it")
    return {
        "state": "ok",
        "server": "dropbear",
        "resolved": False,
        "empty_passwords": None,
        "weak_algorithms": None,
        "x11_forwarding": False,
        "interactive_login": False,
        **section,
        "gaps": gaps.as_list(),
    }


def _of_uci(text: str) -> dict[str, Any]:
    """OpenWrt: one block for each server that is started; the most open one counts."""
    blocks = [dict(_OPTION.findall(part)) for part in _SECTION.split(text)[1:]]
    started = [block for block in blocks if block.get("enable", "1") not in _OFF]
    passwords = [block for block in started if block.get("PasswordAuth", "on") not in _OFF]
    root = [block for block in started if block.get("RootLogin", "on") not in _OFF]
    with_password = [one for one in root if one in passwords and one.get("RootPasswordAuth", "on") not in _OFF]
    tries = [_number(block.get("MaxAuthTries", "")) or _DEFAULT_TRIES for block in started]
    return {
        "ports": _ports([block.get("Port", "22") for block in started]),
        "password_login": bool(passwords),
        "root_login": "yes" if with_password else "prohibit-password" if root else "no",
        "max_auth_tries": max(tries, default=_DEFAULT_TRIES),
    }


def _arguments(system: System) -> list[str]:
    words: list[str] = []
    for place, name in _ARGUMENTS:
        values = settings_of(text_of(system.path(place)))
        if port := values.get("DROPBEAR_PORT", "").strip("\"'"):
            words += ["-p", port]
        words += shlex.split(values.get(name, "").strip("\"'"))
    return words


def _of_arguments(words: list[str]) -> dict[str, Any]:
    flags, ports, tries = set[str](), list[str](), _DEFAULT_TRIES
    waiting = iter(words)
    for word in waiting:
        if word[:2] in {"-p", "-T"}:
            value = word[2:] or next(waiting, "")
            if word[1] == "p":
                ports.append(value.rpartition(":")[2])
            else:
                tries = _number(value) or tries
        elif word.startswith("-"):
            flags |= set(word[1:])
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
