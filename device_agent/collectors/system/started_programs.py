"""The programs that units and scripts of the init system, rc.local and crontabs start."""

import re
import stat
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from device_agent.collectors.system.supervisors import behind_wrappers
from device_agent.host import unit_files
from device_agent.host.files import list_files, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.start_commands import script_commands
from device_agent.host.system import System

_SHELLS: Final = frozenset({"sh", "ash", "bash", "dash"})
_SUPER_SERVERS: Final = frozenset({"tcpsvd", "udpsvd", "tcpserver"})  # [OPTION...] ADDRESS PORT PROGRAM
_ADDRESS: Final = re.compile(r"0|\*|localhost|[\d.]+\.\d+|.*:.*|.*\.[a-z]+")
_SOCAT: Final = re.compile(r"(?:EXEC|SYSTEM|SHELL):[\"']?([^,\"']+)", re.IGNORECASE)
_NETCAT: Final = frozenset({"nc", "ncat", "netcat", "nc.traditional"})
_NETCAT_EXECUTES: Final = re.compile(r"-[a-zA-Z]*[ec]|--exec|--sh-exec")
# A variable of an init script with the path of a program, and the option of start-stop-daemon that names one.
_VARIABLE: Final = re.compile(
    r"^[ \t]*(?:export[ \t]+)?\w+=[\"']?(?:\$\{\w+:-)?(/\S*?(?:bin|libexec)/[\w.+-]+)", re.MULTILINE
)
_NAMING_OPTIONS: Final = frozenset({"--exec", "-x", "--startas", "-a", "-b", "command"})
_KEYWORDS: Final = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{", "("})
# Words of shells, and programs that only set the system up.
_NOT_SERVICES: Final = frozenset(
    {
        "exit", "echo", "fi", "test", "[", "set", "export", "true", "false", ":", "sleep", "touch", "mkdir", "chmod",
        "chown", "ln", "rm", "cp", "mv", "printf", "cat", "done", "for", "case", "esac", "return", "cd", "modprobe",
        "mount", "ip", "iptables", "sysctl", "shift", "unset", ".", "source", "}", ")", "logger", "grep", "sed",
    }
)  # fmt: skip
_LOCAL_SCRIPTS: Final = ("/etc/rc.local", "/etc/rc.d/rc.local")
_CRONTABS: Final = (  # and whether their lines name a user
    ("/etc/crontab", True),
    ("/etc/crontabs/root", False),
    ("/var/spool/cron/crontabs/root", False),
    ("/var/spool/cron/root", False),
)
_TFTP_OF_DNSMASQ: Final = re.compile(r"^[ \t]*(?:enable-tftp\b|option\s+enable_tftp\s+[\"']?1)", re.MULTILINE)

Programs = dict[str, set[str]]
"""Names of programs by name of the service."""


def add_programs(system: System, names: Iterable[str], programs: Programs, gaps: GapRecorder) -> None:
    """Adds the programs of services of systemd (`x.service`, `x.socket`) and of init scripts."""
    for name in names:
        with gaps.capture(name):
            found = _of_unit(system, name) or _of_script(system, name)
            if "dnsmasq" in {*found, name.partition(".")[0]} and _serves_tftp(system, name):
                found.add("tftp")
            if found:
                programs.setdefault(name, set()).update(found)


def add_boot_commands(system: System, programs: Programs, gaps: GapRecorder) -> None:
    """Adds what rc.local and the `@reboot` lines of root's crontabs start, as `rc.local` and `crontab`."""
    for path in _LOCAL_SCRIPTS:
        with gaps.capture(path):
            script = system.path(path)
            if script.is_file() and script.stat().st_mode & stat.S_IXUSR:
                _add(programs, "rc.local", _of_commands(read_text(script)))
    with gaps.capture("/etc/cron.d"):
        tabs = [*_CRONTABS, *((f"/etc/cron.d/{file.name}", True) for file in list_files(system.path("/etc/cron.d")))]
        for path, has_user in tabs:
            with gaps.capture(path):
                for line in read_text(system.path(path)).splitlines():
                    words = line.split(maxsplit=2 if has_user else 1)
                    if words[:1] == ["@reboot"]:
                        _add(programs, "crontab", _of_commands(words[-1]))


def _add(programs: Programs, name: str, found: set[str]) -> None:
    if found:
        programs.setdefault(name, set()).update(found)


def _of_unit(system: System, unit: str) -> set[str]:
    service = unit
    if unit.endswith(".socket"):
        settings = unit_files.read_unit(system, unit)
        stem = unit.removesuffix(".socket")
        is_accepting = settings.get("Socket.Accept", ["no"])[-1:] in (["yes"], ["true"], ["1"], ["on"])
        default = f"{stem.rstrip('@')}@.service" if is_accepting else f"{stem}.service"
        service = settings.get("Socket.Service", [default])[-1]
    if not service.endswith(".service"):
        return set()
    commands = unit_files.start_commands(system, service)
    return {program for words in commands for program in started_programs(words)}


def _of_script(system: System, name: str) -> set[str]:
    plain = name.removesuffix(".service")
    candidates = [system.path(f"/etc/init.d/{plain}"), system.path(f"/etc/rc.d/rc.{plain}")]
    candidates += list_files(system.path("/etc/init.d"), f"S[0-9][0-9]{plain}") if "[" not in plain else []
    script = next((read_text(path) for path in candidates if path.is_file()), "")
    found = {path.rpartition("/")[2] for path in _VARIABLE.findall(script)}
    for words in script_commands(script):
        for option, program in pairwise(words):
            if option in _NAMING_OPTIONS and program.startswith("/"):
                found |= started_programs(words[words.index(program) :])
    return found | {name for name in _of_commands(script) if name.endswith("d")}


def _of_commands(script: str) -> set[str]:
    """Returns the programs of the commands of a script."""
    found: set[str] = set()
    for words in script_commands(script):
        start = next((at for at, word in enumerate(words) if word not in _KEYWORDS), len(words))
        found |= started_programs(words[start:]) - _NOT_SERVICES
    return found


def started_programs(words: list[str]) -> set[str]:
    """Returns the names of the programs that a command runs, with those behind a shell or a server for others."""
    name = behind_wrappers(words)
    if not name:
        return set()
    found = {name}
    rest = words[next((at for at, word in enumerate(words) if word.rpartition("/")[2] == name), 0) + 1 :]
    if name in _SHELLS and "-c" in rest:
        return found | _of_commands(" ".join(rest[rest.index("-c") + 1 :][:1]))
    if name in _SUPER_SERVERS:
        for at in range(2, len(rest)):
            if _ADDRESS.fullmatch(rest[at - 2]) and not rest[at - 1].startswith("-"):
                return found | started_programs(rest[at:])
    if name == "socat":
        for word in rest:
            for command in _SOCAT.findall(word):
                found |= started_programs(unit_files.split_words(command))
    if name in _NETCAT:
        for option, command in pairwise(rest):
            if _NETCAT_EXECUTES.fullmatch(option):
                found |= started_programs(unit_files.split_words(command))
    return found


def _serves_tftp(system: System, name: str) -> bool:
    files = [system.path("/etc/dnsmasq.conf"), system.path("/etc/config/dhcp")]
    files += list_files(system.path("/etc/dnsmasq.d"))
    commands = unit_files.start_commands(system, name) if name.endswith(".service") else []
    return any(_TFTP_OF_DNSMASQ.search(read_text(file)) for file in files) or any(
        "--enable-tftp" in word for words in commands for word in words
    )
