"""The `ssh` section of dropbear, a small SSH server, from its arguments in the distribution's configuration files."""

import shlex
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host import uci
from device_agent.host.files import parse_key_values, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.start_commands import commands_of
from device_agent.host.system import System

_PROGRAMS: Final = ("/usr/sbin/dropbear", "/usr/bin/dropbear", "/bin/dropbear")
_UCI: Final = "/etc/config/dropbear"
# Debian, Yocto, Buildroot, Alpine: a file of shell variables, and the variables that hold the arguments.
_ARGUMENTS: Final = (
    ("/etc/default/dropbear", ("DROPBEAR_EXTRA_ARGS", "DROPBEAR_ARGS")),
    ("/etc/sysconfig/dropbear", ("OPTIONS", "DROPBEAR_ARGS")),
    ("/etc/conf.d/dropbear", ("DROPBEAR_OPTS",)),
)
_ROOT_LOGINS: Final = ("yes", "prohibit-password", "no")  # the most permissive first
_DEFAULT_TRIES: Final = 10
_OFF: Final = frozenset({"off", "0", "no", "false", "disabled"})
_WITH_VALUE: Final = frozenset("bcdrpPWKITAGD")  # options that take a value, joined or as the next argument
_FLAGS: Final = frozenset("RFEmwsgBajkizVtle")
_FIELDS: Final = ("ports", "password_login", "root_login", "max_auth_tries", "empty_passwords")


def collect(system: System) -> Section | None:
    """Collects the `ssh` section; returns None when dropbear is not installed."""
    if not any(system.path(program).exists() for program in _PROGRAMS):
        return None
    section = SectionBuilder(server="dropbear", resolved=False, x11_forwarding=False, interactive_login=False)
    gaps = GapRecorder()
    with gaps.capture():
        configured = read_text(system.path(_UCI))
        section.set(
            **(
                _from_uci(configured)
                if configured
                else _most_permissive([_from_arguments(one, gaps) for one in _servers(system, gaps)])
            )
        )
        if configured:
            section.gap("empty_passwords", reason="depends on how dropbear was built", source=_UCI)
    section.add_gaps(gaps.gaps, *_FIELDS)
    section.gap("weak_algorithms", reason="dropbear does not report it")
    return section.build()


def _from_uci(text: str) -> dict[str, Any]:
    """Parses OpenWrt's configuration: a block for each server; the most permissive one counts.

    Raises:
        ValueError: a line has open quotes.
    """
    blocks = [{key: value.lower() for key, value in one.items()} for one in uci.blocks_of(text, "dropbear")]
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
    """Returns the arguments that the distribution's files give dropbear.

    Raises:
        ValueError: a value has open quotes.
    """
    arguments: list[str] = []
    for path, names in _ARGUMENTS:
        values = parse_key_values(read_text(system.path(path)))
        if port := " ".join(shlex.split(values.get("DROPBEAR_PORT", ""), comments=True)):
            arguments += ["-p", port]
        for name in names:
            # The shell removes the quotes of the value; what is in them are the words of the command line.
            arguments += shlex.split(" ".join(shlex.split(values.get(name, ""), comments=True)))
    return arguments


def _servers(system: System, gaps: GapRecorder) -> list[list[str]]:
    """Returns the arguments of each command that starts dropbear, of the configuration files where none is found.

    Raises:
        ValueError: a value has open quotes.
    """
    configured = _arguments(system)
    servers = []
    for words in gaps.take(commands_of(system, "dropbear")):
        if not words or not words[0].startswith(("-", "$")):
            continue  # a test for the program, or its name for a message
        arguments: list[str] = []
        for word in words:
            if "$" not in word:
                arguments.append(word)
            elif arguments and arguments[-1][0] == "-" and arguments[-1][-1] in _WITH_VALUE:
                arguments.pop()
        # Variables of a script are those of the configuration files.
        servers.append(arguments + (configured if any("$" in word for word in words) else []))
    return servers or [configured]


def _most_permissive(servers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ports": sorted({port for server in servers for port in server["ports"]}),
        "password_login": any(server["password_login"] for server in servers),
        "root_login": next(value for value in _ROOT_LOGINS if any(server["root_login"] == value for server in servers)),
        "max_auth_tries": max(server["max_auth_tries"] for server in servers),
        "empty_passwords": any(server["empty_passwords"] for server in servers),
    }


def _from_arguments(arguments: list[str], gaps: GapRecorder) -> dict[str, Any]:
    flags, ports, tries = set[str](), list[str](), _DEFAULT_TRIES
    rest = iter(arguments)
    for argument in rest:
        letters = iter(argument[1:] if argument.startswith("-") else "")
        if not argument.startswith("-") or "$" in argument:
            gaps.add(f"not understood: {argument}")
        for letter in letters:
            if letter not in _WITH_VALUE:
                flags.add(letter)
                continue
            value = "".join(letters) or next(rest, "")
            if letter == "p":
                ports.append(value.rpartition(":")[2])
            elif letter == "T":
                tries = _number(value) or tries
    for unknown in sorted(flags - _FLAGS):
        gaps.add(f"not understood: -{unknown}")
    return {
        "ports": _ports(ports or ["22"]),
        "password_login": "s" not in flags,
        "root_login": "no" if "w" in flags else "prohibit-password" if flags & {"g", "s"} else "yes",
        "max_auth_tries": tries,
        "empty_passwords": "B" in flags and "s" not in flags,
    }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _ports(texts: list[str]) -> list[int]:
    return sorted({port for text in texts if 0 < (port := _number(text.rpartition(":")[2])) <= 0xFFFF})
