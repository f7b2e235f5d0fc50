"""The configuration of xinetd: the services that it starts."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.includes import IncludeBudget
from device_agent.host.inetd import program_behind
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System, process_names

_MAIN: Final = "/etc/xinetd.conf"
_MAX_FILES: Final = 256
_PROGRAM: Final = "xinetd"
_ATTRIBUTE: Final = re.compile(r"^\s*(\S+)\s+([+-]?=)(.*)", re.DOTALL)
# Attributes of a service that take exactly so many values; with another number of them they are ignored.
_ONE_VALUE: Final = frozenset({"disable", "id", "server", "port", "protocol", "wait", "user", "socket_type"})
_FLAGS: Final = frozenset(
    {
        "reuse", "intercept", "noretry", "idonly", "nameinargs", "nodelay", "disable", "keepalive", "nolibwrap",
        "sensor", "ipv4", "ipv6", "labeled",
    }
)  # fmt: skip
# Another value switches the service off.
_VALUES: Final = {
    "disable": frozenset({"yes", "no"}),
    "wait": frozenset({"yes", "no"}),
    "socket_type": frozenset({"stream", "dgram", "raw", "seqpacket"}),
    "type": frozenset({"rpc", "internal", "unlisted", "special", "tcpmux", "tcpmuxplus"}),
    "flags": _FLAGS,
}
_SEVERAL_VALUES: Final = frozenset({"server_args", "type", "flags"})
_SWITCHES: Final = frozenset({"enabled", "disabled"})


@dataclass(frozen=True, slots=True)
class XinetdEntry:
    """An enabled service."""

    file: Path
    service: str
    program: str


@dataclass(slots=True)
class _Service:
    """A block of the configuration."""

    file: Path
    name: str
    settings: dict[str, list[str]] = field(default_factory=dict)
    is_off: bool = False
    has_off_flag: bool = False

    def words(self, key: str) -> list[str]:
        return self.settings.get(key, [])


def entries(system: System) -> list[XinetdEntry]:
    """Returns every service that xinetd starts, as far as its files are understood; raises as `read_entries`."""
    return read_entries(system).value


def read_entries(system: System) -> Reading[list[XinetdEntry]]:
    """Returns every service that xinetd starts; a malformed block is a gap.

    Raises:
        FactsUnavailableError: a file or folder is too large, or too many are included.
        OSError: a file exists and cannot be read.
    """
    gaps = GapRecorder()
    config = _Config(system, gaps)
    if not system.path(_MAIN).is_file():
        return gaps.complete([])
    config.read(system.path(_MAIN))
    started = []
    for service in config.services:
        identity = (service.words("id") or [service.name])[0].lower()
        # The lists name ids. The list of enabled ones overrides the flag DISABLE, but not `disable = yes`.
        is_on = not service.has_off_flag if config.enabled is None else identity in config.enabled
        if is_on and not service.is_off and identity not in config.disabled:
            # With NAMEINARGS the first argument is the program's own name, as in inetd.conf.
            program = program_behind([*service.words("server"), *service.words("server_args")])
            started.append(XinetdEntry(service.file, service.name, program))
    return gaps.complete(started)


def processes(system: System) -> list[int]:
    """Returns the process ids of running xinetds."""
    with contextlib.suppress(OSError):
        return [pid for pid, name in process_names(system).items() if name == _PROGRAM]
    return []


class _Config:
    """What the files say, in the order in which xinetd reads them."""

    def __init__(self, system: System, gaps: GapRecorder) -> None:
        self._system, self._gaps = system, gaps
        self._budget = IncludeBudget(system, _MAX_FILES)
        self._read: set[Path] = set()
        self._has_defaults = False
        self.services: list[_Service] = []
        self.enabled: list[str] | None = None
        self.disabled: list[str] = []

    def read(self, file: Path) -> None:
        """Reads a file and what it includes."""
        if file in self._read:
            return
        if len(self._read) >= _MAX_FILES:
            raise FactsUnavailableError(f"{_MAIN} includes more than {_MAX_FILES} files")
        self._read.add(file)
        written = self._budget.text(file).split("\n")
        lines = (line for line in written if line.strip() and not line.lstrip().startswith("#"))
        for line in lines:
            words = line.split()
            keyword = words[0].lower()
            if keyword in {"include", "includedir"} and len(words) > 1:
                for included in self._included(keyword, words[1]):
                    self.read(included)
            elif keyword == "defaults" or (keyword == "service" and len(words) > 1):
                if next(lines, "").strip() != "{":
                    self._skip_malformed(line, lines)
                elif keyword == "service":
                    self._service(_Service(file, words[1]), lines)
                elif self._has_defaults:
                    _skip(lines)  # only the first one counts
                else:
                    self._has_defaults = True
                    self._defaults(lines)
            else:
                self._skip_malformed(line, lines)

    def _skip_malformed(self, line: str, lines: Iterator[str]) -> None:
        """Records a gap and drops the block, as xinetd does, which after some mistakes drops those that follow too."""
        self._gaps.add(f"not understood: {line.strip()}", _MAIN)
        _skip(lines)

    def _included(self, kind: str, target: str) -> list[Path]:
        path = self._system.path(target)
        if kind == "include":
            return [path]
        return [file for file in self._budget.files_in(path) if "." not in file.name and not file.name.endswith("~")]

    def _service(self, service: _Service, lines: Iterator[str]) -> None:
        known = len(self._gaps.gaps)
        for key, operator, values in self._attributes(lines):
            _set(service, key, operator, values)
        if len(self._gaps.gaps) == known:
            self.services.append(service)

    def _defaults(self, lines: Iterator[str]) -> None:
        for key, _, values in self._attributes(lines):
            if key not in _SWITCHES:
                continue
            # Every operator adds to these lists, and case makes no difference.
            names = [value.lower() for value in values]
            if key == "disabled":
                self.disabled += names
            else:
                self.enabled = [*(self.enabled or []), *names]

    def _attributes(self, lines: Iterator[str]) -> Iterator[tuple[str, str, list[str]]]:
        """Yields name (lower case), operator and values up to the end of a block."""
        for line in lines:
            if line.strip() == "}":
                return
            match = _ATTRIBUTE.match(line)
            if match is None:
                self._skip_malformed(line, lines)
                return
            yield match[1].lower(), match[2], match[3].split()


def _set(service: _Service, key: str, operator: str, values: list[str]) -> None:
    """Sets an attribute; the first value of each counts."""
    if key not in _ONE_VALUE | _SEVERAL_VALUES or key in service.settings or operator != "=":
        return
    if key in _ONE_VALUE and len(values) != 1:
        return
    if key in _VALUES and not {value.lower() for value in values} <= _VALUES[key]:
        service.has_off_flag = True
        service.is_off |= key == "disable"
        return
    service.settings[key] = values
    if key == "flags":
        service.has_off_flag |= "disable" in {value.lower() for value in values}
    elif key == "disable":
        service.is_off |= values[0].lower() == "yes"
        service.has_off_flag = False


def _skip(lines: Iterator[str]) -> None:
    for line in lines:
        if line.strip() == "}":
            return
