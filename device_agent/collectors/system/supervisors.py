"""Services of s6 and runit: a folder for each, whose script `run` starts the program."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.files import list_names, read_text
from device_agent.host.inetd import program_behind
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_MAX_SERVICES: Final = 1024
_MAX_DEPTH: Final = 8  # bundles of s6-rc in bundles
_S6_RC: Final = ("/etc/s6-overlay/s6-rc.d", "/package/admin/s6-overlay/etc/s6-rc/sources/base")
_S6_SCAN: Final = ("/etc/services.d", "/etc/s6-overlay/services.d", "/run/service")
_RUNIT_SCAN: Final = ("/etc/runit/runsvdir/default", "/etc/service", "/var/service", "/run/runit/service")
# Programs that replace themselves by the one that follows, and those of their options that take a value.
_WRAPPERS: Final = {
    "exec": "a", "nice": "n", "env": "u", "setuidgid": "", "s6-setuidgid": "", "envuidgid": "", "s6-envuidgid": "",
    "chpst": "uUbenmdoplfc", "softlimit": "mdsaolpfcrt", "s6-softlimit": "mdsaolpfcrt", "fdmove": "", "setsid": "",
    "s6-notifyoncheck": "tswdn", "foreground": "", "busybox": "", "toybox": "", "su-exec": "", "with-contenv": "",
    "command": "", "s6-envdir": "", "envdir": "", "stdbuf": "ioe", "ionice": "cn", "unshare": "",
}  # fmt: skip
_WITH_USER: Final = frozenset(
    {"setuidgid", "s6-setuidgid", "envuidgid", "s6-envuidgid", "su-exec", "envdir", "s6-envdir"}
)


@dataclass(frozen=True, slots=True)
class SupervisedService:
    """A service folder; `program` is empty where its script does not show it."""

    name: str
    is_enabled: bool
    is_active: bool
    program: str


def read_supervised(system: System, gaps: GapRecorder) -> tuple[str, list[SupervisedService]] | None:
    """Returns the supervisor's name and its services; None where neither s6 nor runit has any folder of services.

    A script whose program is not understood is a gap.

    Raises:
        FactsUnavailableError: a folder has too many entries.
        OSError: a folder cannot be listed.
    """
    s6 = {name: folder for root in _S6_RC for name, folder in _bundle(system, root, "user", 0).items()}
    for root in _S6_SCAN:
        s6.update(_folders(system, root))
    if s6:
        return "s6", [_service(system, name, folder, gaps) for name, folder in sorted(s6.items())]
    runit = {name: folder for root in _RUNIT_SCAN for name, folder in _folders(system, root).items()}
    if runit:
        return "runit", [_service(system, name, folder, gaps) for name, folder in sorted(runit.items())]
    return None


def _bundle(system: System, root: str, name: str, depth: int) -> dict[str, str]:
    """Returns the services of a bundle of s6-rc by name."""
    found: dict[str, str] = {}
    for member in _names(system.path(f"{root}/{name}/contents.d")):
        if depth < _MAX_DEPTH and system.path(f"{root}/{member}/contents.d").is_dir():
            found.update(_bundle(system, root, member, depth + 1))
        else:
            found[member] = f"{root}/{member}"
    return found


def _folders(system: System, root: str) -> dict[str, str]:
    """Returns the folders that a supervisor scans; links are followed below the root of the system."""
    found = {}
    for name in _names(system.path(root)):
        path = system.path(f"{root}/{name}")
        target = str(path.readlink()) if path.is_symlink() else f"{root}/{name}"
        found[name] = target if target.startswith("/") else f"{root}/{target}"
    return found


def _names(folder: Path) -> list[str]:
    return [name for name in list_names(folder, _MAX_SERVICES) if not name.startswith(".")]


def _service(system: System, name: str, folder: str, gaps: GapRecorder) -> SupervisedService:
    is_oneshot = read_text(system.path(f"{folder}/type")).strip() in {"oneshot", "bundle"}
    program = ""
    if not is_oneshot:
        with gaps.capture(f"{folder}/run"):
            program = program_of(read_text(system.path(f"{folder}/run")))
        if not program:
            gaps.add("what the script runs is not understood", f"{folder}/run")
    states = [f"/run/service/{name}/supervise", f"/run/runit/supervise.{name}", f"{folder}/supervise"]
    is_active = any(system.path(state).exists() for state in states)
    return SupervisedService(name, not system.path(f"{folder}/down").exists(), is_active, program)


def program_of(script: str) -> str:
    """Returns the program that a script starts at its end, behind programs that only prepare it; empty if unclear."""
    lines = [line.strip() for line in script.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    starting = [line for line in lines if line.split()[0] == "exec"] or lines[-1:]
    try:
        words = shlex.split(starting[-1], comments=True) if starting else []
    except ValueError:
        return ""
    return behind_wrappers(words)


def behind_wrappers(words: Sequence[str]) -> str:
    """Returns the name of the program that a command runs behind those that only prepare it; empty if unclear."""
    left = list(words)
    while left:
        word = left.pop(0)
        name = word.rpartition("/")[2]
        if "$" in word:
            return ""
        if name in _WRAPPERS:
            while left and left[0].startswith("-"):
                option = left.pop(0)
                if len(option) == 2 and option[1] in _WRAPPERS[name]:
                    left = left[1:]
            left = left[1:] if name in _WITH_USER else left
        elif "=" not in word and not word.startswith((">", "<", "2>")):
            return program_behind([word])
    return ""
