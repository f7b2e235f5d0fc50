"""The configuration of inetd: which services it would start, and how one is switched off and on again."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.files import write_whole
from device_agent.host.system import System

OFF: Final = "#<cordon># "
"""What is put before an entry that we switched off, so that only ours is ever switched on again."""
PROGRAMS: Final = frozenset({"inetd", "openbsd-inetd", "inetutils-inetd", "rlinetd"})
_FIELDS: Final = 6  # service, type, protocol, wait, user, program
_MAX_FILE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class InetdEntry:
    """A line that inetd acts on."""

    file: Path
    service: str
    program: str

    def matches_name(self, name: str) -> bool:
        """Whether `name` means this entry: the service's name, or its program's with or without `in.`."""
        name = name.removeprefix("inetd:")
        return name in {self.service, self.program, self.program.removeprefix("in.")}


def files(system: System) -> list[Path]:
    """The configuration files of inetd on this system."""
    main, more = system.path("/etc/inetd.conf"), system.path("/etc/inetd.d")
    found = [main] if main.is_file() else []
    return found + (sorted(path for path in more.iterdir() if path.is_file()) if more.is_dir() else [])


def entries(system: System) -> list[InetdEntry]:
    """Every entry that is switched on."""
    found = []
    for file in files(system):
        with file.open(errors="replace") as text:
            found += [entry for line in text.read(_MAX_FILE_BYTES).splitlines() if (entry := _entry(file, line))]
    return found


def switch_off(system: System, name: str) -> int:
    """Switch off the entries called `name`; how many there were."""
    return _rewrite(system, name, is_off=True)


def switch_on(system: System, name: str) -> int:
    """Switch on what `switch_off` switched off; how many there were."""
    return _rewrite(system, name, is_off=False)


def processes(system: System) -> list[int]:
    """Process ids of running inetds."""
    found = []
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() in PROGRAMS:
                found.append(int(folder.name))
    return found


def reload(system: System) -> int:
    """Have running inetds read their configuration again; how many there are."""
    if not system.is_live:
        return 0
    running = processes(system)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    return len(running)


def _entry(file: Path, line: str) -> InetdEntry | None:
    fields = line.split()
    if line.lstrip().startswith("#") or len(fields) < _FIELDS:
        return None
    # A wrapper such as tcpd has the real program as its first argument.
    is_wrapped = fields[5].endswith("/tcpd") and len(fields) > _FIELDS
    program = fields[6] if is_wrapped else fields[5]
    return InetdEntry(file, fields[0].rsplit(":", 1)[-1], program.rsplit("/", 1)[-1])


def _rewrite(system: System, name: str, *, is_off: bool) -> int:
    changed = 0
    for file in files(system):
        lines = file.read_text().splitlines(keepends=True)
        after = [_switched(file, line, name, is_off=is_off) for line in lines]
        count = sum(old != new for old, new in zip(lines, after, strict=True))
        if count:
            known = file.stat()
            write_whole(file, file.with_name(f".{file.name}.cordon"), "".join(after).encode(), known.st_mode & 0o777)
            if os.geteuid() == 0:
                os.chown(file, known.st_uid, known.st_gid)
            changed += count
    return changed


def _switched(file: Path, line: str, name: str, *, is_off: bool) -> str:
    bare = line if is_off else line.removeprefix(OFF)
    if not is_off and bare == line:
        return line
    entry = _entry(file, bare)
    if entry is None or not entry.matches_name(name):
        return line
    return OFF + line if is_off else bare
