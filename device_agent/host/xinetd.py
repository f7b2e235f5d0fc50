"""The configuration of xinetd: the services that it starts."""

import contextlib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import list_files, read_text
from device_agent.host.inetd import program_behind
from device_agent.host.system import System, process_names

_MAIN: Final = "/etc/xinetd.conf"
_MAX_FILES: Final = 256
_PROGRAM: Final = "xinetd"
_IGNORED: Final = ("*~", "*.*")  # xinetd ignores these files of a folder


@dataclass(frozen=True, slots=True)
class XinetdEntry:
    """An enabled service."""

    file: Path
    service: str
    program: str


@dataclass(slots=True)
class _Block:
    """A block of the configuration; without `service` it has the defaults."""

    file: Path
    service: str
    settings: dict[str, list[str]]

    def words(self, key: str) -> list[str]:
        return self.settings.get(key, [])


def entries(system: System) -> list[XinetdEntry]:
    """Returns every service that neither its block nor the defaults disable.

    Raises:
        OSError: a file exists and cannot be read.
    """
    blocks = list(_blocks(system))
    defaults = [block for block in blocks if not block.service]
    disabled = {word for block in defaults for word in block.words("disabled")}
    enabled = {word for block in defaults for word in block.words("enabled")}
    services = []
    for block in blocks:
        names = {block.service, *block.words("id")}
        is_off = _is_yes(block.words("disable")) or names & disabled or (enabled and not names & enabled)
        if block.service and not is_off:
            # With NAMEINARGS the first argument is the program's own name, as in inetd.conf.
            program = program_behind([*block.words("server"), *block.words("server_args")])
            services.append(XinetdEntry(block.file, block.service, program))
    return services


def _is_yes(words: list[str]) -> bool:
    return bool(words) and words[-1].lower() == "yes"


def processes(system: System) -> list[int]:
    """Returns the process ids of running xinetds."""
    with contextlib.suppress(OSError):
        return [pid for pid, name in process_names(system).items() if name == _PROGRAM]
    return []


def _blocks(system: System) -> Iterator[_Block]:
    pending, read = [system.path(_MAIN)], set[Path]()
    if not pending[0].is_file():
        return
    while pending:
        file = pending.pop(0)
        if file in read:
            continue
        if len(read) >= _MAX_FILES:
            raise FactsUnavailableError(f"{_MAIN} includes more than {_MAX_FILES} files")
        read.add(file)
        block: _Block | None = None
        for line in read_text(file).splitlines():
            content = line.partition("#")[0].strip()
            words = content.split()
            if not words:
                continue
            if block is None:
                pending += _included(system, words)
                if words[0] in {"service", "defaults"}:
                    block = _Block(file, words[1] if words[0] == "service" and len(words) > 1 else "", {})
            elif words[0].startswith("}"):
                yield block
                block = None
            else:
                key, _, value = content.partition("=")
                block.settings[key.strip(" \t+-{")] = value.split()
        if block is not None:  # a block without its end
            yield block


def _included(system: System, words: list[str]) -> list[Path]:
    if len(words) < 2 or words[0] not in {"include", "includedir"}:
        return []
    path = system.path(words[1])
    if words[0] == "include":
        return [path]
    return [file for file in list_files(path) if not any(fnmatch.fnmatch(file.name, glob) for glob in _IGNORED)]
