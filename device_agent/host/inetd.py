"""The configuration of inetd: the services that it starts, and how to disable and enable one."""

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.files import list_files, read_beginning, read_text, write_whole
from device_agent.host.system import System, process_names
from schemas.safe_files import open_for_reading

OFF: Final = "#<cordon># "
"""Prefix of the entries that this agent disabled: no other entry is ever enabled again."""
PROGRAMS: Final = frozenset({"inetd", "openbsd-inetd", "inetutils-inetd", "rlinetd"})
WRAPPERS: Final = frozenset({"tcpd", "busybox", "toybox"})
_FIELDS: Final = 6  # service, type, protocol, wait, user, program
_MAX_COMMAND_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class InetdEntry:
    """An enabled line of the configuration."""

    file: Path
    service: str
    program: str

    def matches_name(self, name: str) -> bool:
        """Returns whether `name` is the service, or its program with or without `in.`."""
        name = name.removeprefix("inetd:")
        return name in {self.service, self.program, self.program.removeprefix("in.")}


def files(system: System) -> list[Path]:
    """Returns the configuration files."""
    main, more = system.path("/etc/inetd.conf"), system.path("/etc/inetd.d")
    existing = [main] if main.is_file() else []
    return existing + list_files(more)


def entries(system: System) -> list[InetdEntry]:
    """Returns every enabled entry.

    Raises:
        FactsUnavailableError: a file or the folder is too large.
        OSError: a file exists and cannot be read.
    """
    enabled = []
    for file in files(system):
        enabled += [entry for line in read_text(file).splitlines() if (entry := _parse(file, line))]
    return enabled


def switch_off(system: System, name: str) -> int:
    """Disables the entries that match `name`; returns their number."""
    return _rewrite(system, name, is_off=True)


def switch_on(system: System, name: str) -> int:
    """Enables what `switch_off` disabled; returns the number of entries."""
    return _rewrite(system, name, is_off=False)


def processes(system: System) -> list[int]:
    """Returns the process ids of running inetds."""
    with contextlib.suppress(OSError):
        return [pid for pid, name in process_names(system).items() if _is_inetd(system, pid, name)]
    return []


def _is_inetd(system: System, pid: int, name: str) -> bool:
    if name not in WRAPPERS:
        return name in PROGRAMS
    with contextlib.suppress(OSError):
        command, _ = read_beginning(system.path(f"/proc/{pid}/cmdline"), _MAX_COMMAND_BYTES)
        return program_behind(command.replace("\0", " ").split()) in PROGRAMS
    return False


def reload(system: System) -> int:
    """Makes running inetds read their configuration again; returns their number."""
    if not system.is_live:
        return 0
    pids = processes(system)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    return len(pids)


def _parse(file: Path, line: str) -> InetdEntry | None:
    fields = line.split()
    if line.lstrip().startswith("#") or len(fields) < _FIELDS:
        return None
    return InetdEntry(file, fields[0].rsplit(":", 1)[-1], program_behind(fields[5:]))


def program_behind(command: Sequence[str]) -> str:
    """Returns the name of the program that a command line runs: behind tcpd or BusyBox it is an argument."""
    names = [word.rsplit("/", 1)[-1] for word in command]
    while len(names) > 1 and names[0] in WRAPPERS:
        names = names[1:]
    return names[0] if names else ""


def _rewrite(system: System, name: str, *, is_off: bool) -> int:
    changed = 0
    for file in files(system):
        with open_for_reading(file) as opened:
            lines = opened.read().decode().splitlines(keepends=True)
        new_lines = [_switch(file, line, name, is_off=is_off) for line in lines]
        count = sum(old != new for old, new in zip(lines, new_lines, strict=True))
        if count:
            status = file.stat()
            temporary = file.with_name(f".{file.name}.cordon")
            owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
            write_whole(file, temporary, "".join(new_lines).encode(), status.st_mode, owner)
            changed += count
    return changed


def _switch(file: Path, line: str, name: str, *, is_off: bool) -> str:
    enabled = line if is_off else line.removeprefix(OFF)
    if not is_off and enabled == line:
        return line
    entry = _parse(file, enabled)
    if entry is None or not entry.matches_name(name):
        return line
    return OFF + line if is_off else enabled
