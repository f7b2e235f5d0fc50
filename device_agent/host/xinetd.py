"""The configuration of xinetd: which services it would start."""

import contextlib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.files import files_in, text_of
from device_agent.host.system import System

_MAIN: Final = "/etc/xinetd.conf"
_MAX_INCLUDED: Final = 256  # files that others name
_PROGRAM: Final = "xinetd"
_IGNORED: Final = ("*~", "*.*")  # what xinetd itself leaves out of a folder


@dataclass(frozen=True, slots=True)
class XinetdEntry:
    """A service that xinetd acts on."""

    file: Path
    service: str
    program: str


@dataclass(slots=True)
class _Block:
    file: Path
    service: str
    settings: dict[str, list[str]]

    def words(self, key: str) -> list[str]:
        return self.settings.get(key, [])


def entries(system: System) -> list[XinetdEntry]:
    """Every service that is switched on: not `disable = yes`, and not switched off or left out by the defaults.

    Raises:
        OSError: a file is there and cannot be read.
    """
    blocks = list(_blocks(system))
    defaults = [block for block in blocks if not block.service]
    off = {word for block in defaults for word in block.words("disabled")}
    only = {word for block in defaults for word in block.words("enabled")}
    found = []
    for block in blocks:
        names = {block.service, *block.words("id")}
        is_off = "yes" in block.words("disable") or names & off or (only and not names & only)
        if block.service and not is_off:
            program = (block.words("server") or [""])[0].rsplit("/", 1)[-1]
            found.append(XinetdEntry(block.file, block.service, program))
    return found


def is_running(system: System) -> bool:
    """Whether xinetd runs."""
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text(errors="replace").strip() == _PROGRAM:
                return True
    return False


def _blocks(system: System) -> Iterator[_Block]:
    waiting, seen = [system.path(_MAIN)], set[Path]()
    if not waiting[0].is_file():
        return
    while waiting and len(seen) < _MAX_INCLUDED:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        block: _Block | None = None
        for line in text_of(file).splitlines():
            bare = line.partition("#")[0].strip()
            words = bare.split()
            if not words:
                continue
            if block is None:
                waiting += _included(system, words)
                if words[0] in {"service", "defaults"}:
                    block = _Block(file, words[1] if words[0] == "service" and len(words) > 1 else "", {})
            elif words[0].startswith("}"):
                yield block
                block = None
            else:
                key, _, value = bare.partition("=")
                block.settings[key.strip(" \t+-{")] = value.split()
        if block is not None:  # never closed: what it says so far
            yield block


def _included(system: System, words: list[str]) -> list[Path]:
    if len(words) < 2 or words[0] not in {"include", "includedir"}:
        return []
    place = system.path(words[1])
    if words[0] == "include":
        return [place]
    return [path for path in files_in(place) if not any(fnmatch.fnmatch(path.name, one) for one in _IGNORED)]
