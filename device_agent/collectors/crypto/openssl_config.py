"""Parses openssl.cnf as the OpenSSL library does, includes and variables resolved, and returns its TLS policy."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

CONFIG_PATHS: Final = (
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/local/ssl/openssl.cnf",
    "/usr/local/etc/ssl/openssl.cnf",
)
MAX_INCLUDES: Final = 32  # files in total
MAX_VALUE: Final = 512  # characters, after expansion
_DEFAULT: Final = "default"
_VARIABLE: Final = re.compile(r"\$(?:(\w+)::)?(?:\{(\w+)\}|\((\w+)\)|(\w+))")
_LEVEL: Final = re.compile(r"@SECLEVEL=([0-5])(?![0-9])")
_TLS_VERSIONS: Final = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_DTLS_VERSIONS: Final = ("DTLSv1", "DTLSv1.2")
_TRUE: Final = frozenset({"1", "yes", "true", "on", "y"})
_FIRST_TO_READ_ACTIVATE: Final = [3, 3]
# Values of `Options` that weaken TLS.
_UNSAFE: Final = frozenset({"unsafelegacyrenegotiation", "unsafelegacyserverconnect", "allownoenckeyexchange"})

ConfigSections = dict[str, dict[str, str]]


def config_path(system: System, openssl_dir: str) -> str | None:
    """Returns the file in use: in OPENSSLDIR where the program reported it, else in one of the usual folders."""
    paths = (f"{openssl_dir}/openssl.cnf", *CONFIG_PATHS) if openssl_dir else CONFIG_PATHS
    return next((path for path in paths if system.path(path).is_file()), None)


def read_policy(system: System, file: str, version: str = "") -> Reading[dict[str, Any]]:
    """Returns the fields of `OpensslConfig` for a version of the library; gaps may hide any of them.

    Raises:
        FactsUnavailableError: a file is too large, or too many are included.
        OSError: the file cannot be read.
    """
    gaps = GapRecorder()
    sections = read_sections(system, file, gaps)
    return gaps.complete(gaps.take(effective_policy(file, sections, version)))


def read_sections(system: System, file: str, gaps: GapRecorder) -> ConfigSections:
    """Returns every section with its values; the last value of a key wins, includes are read in place."""
    sections: ConfigSections = {_DEFAULT: {}}
    _read_into(sections, system, file, _DEFAULT, _Progress(gaps, IncludeBudget(system, MAX_INCLUDES)))
    return sections


@dataclass(slots=True)
class _Progress:
    gaps: GapRecorder
    budget: IncludeBudget
    files: list[str] = field(default_factory=list)
    folder: str = ""  # of relative includes, set by `.pragma includedir`

    def pragma(self, text: str, file: str) -> None:
        name, _, value = text.lstrip("= \t").partition(":")
        if name.strip() == "includedir" and value.strip().startswith("/"):
            self.folder = value.strip()
        elif name.strip() != "abspath":
            self.gaps.add(f"not understood: .pragma {text[:64]}", file)

    def base(self, file: str, target: str) -> str:
        """Returns the folder of a relative include; without a pragma the library takes the program's current one."""
        if not self.folder and not target.startswith("/"):
            self.gaps.add(f"a relative .include {target[:64]} depends on the folder that a program runs in", file)
        return self.folder or str(PurePosixPath(file).parent)


def _read_into(sections: ConfigSections, system: System, file: str, section: str, progress: _Progress) -> str:
    files_read = progress.files
    files_read.append(file)
    for line in _lines(progress.budget.text(system.path(file))):
        if line.startswith("[") and "]" in line:
            section = line[1 : line.index("]")].strip()
            sections.setdefault(section, {})
        elif line.startswith(".include"):
            target = line.removeprefix(".include").strip().lstrip("=").strip().strip("\"'")
            for included in _included_files(system, progress, progress.base(file, target), target):
                if len(files_read) < MAX_INCLUDES:
                    section = _read_into(sections, system, included, section, progress)
                elif included not in files_read:
                    raise FactsUnavailableError(f"{file}: more than {MAX_INCLUDES} files are included")
        elif line.startswith(".pragma"):
            progress.pragma(line.removeprefix(".pragma"), file)
        elif "=" in line:
            key, _, value = line.partition("=")
            scope, _, name = key.strip().rpartition("::")
            scope = scope or section
            values = sections.setdefault(scope, {})
            expanded = _expand(sections, scope, _unquote(value))
            values.pop(name, None)  # a later value is applied later, as the library does
            values[name] = expanded
    return section


def _included_files(system: System, progress: _Progress, base: str, target: str) -> list[str]:
    """Returns the included file, or the files of an included folder; relative paths start at a base folder."""
    if not target or "\0" in target:
        return []
    absolute = str(PurePosixPath(base) / target)
    path = system.path(absolute)
    if path.is_dir():
        configs: list[Path] = [entry for entry in progress.budget.files_in(path) if entry.suffix in (".cnf", ".conf")]
        return [f"{absolute.rstrip('/')}/{config.name}" for config in configs]
    return [absolute] if path.is_file() else []


def _lines(text: str) -> Iterator[str]:
    """Yields the lines without comments, continued lines joined."""
    pending = ""
    for raw in text.splitlines():
        line = re.sub(r"(?<!\\)#.*$", "", raw).rstrip()
        if line.endswith("\\"):
            pending = (pending + line[:-1])[:MAX_VALUE]
            continue
        joined, pending = (pending + line).strip(), ""
        if joined:
            yield joined
    if pending.strip():
        yield pending.strip()


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        value = value[1:-1]
    return value[:MAX_VALUE]


def _expand(sections: ConfigSections, scope: str, value: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = match[2] or match[3] or match[4]
        if match[1]:
            return sections.get(match[1], {}).get(name, "")
        return sections.get(scope, {}).get(name, sections[_DEFAULT].get(name, ""))

    return _VARIABLE.sub(replacement, value)[:MAX_VALUE] if "$" in value else value


def effective_policy(
    file: str, sections: Mapping[str, Mapping[str, str]], version: str = ""
) -> Reading[dict[str, Any]]:
    """Evaluates the sections that the library reads; the others are for tools such as `openssl req`."""
    gaps = GapRecorder()
    start = _section(sections, sections.get(_DEFAULT, {}).get("openssl_conf", ""))
    tls = _section(sections, _section(sections, start.get("ssl_conf", "")).get("system_default", ""))
    # The library ignores what is before the first dot: `TLS.MinProtocol` and `DTLS.MinProtocol` are one command.
    commands = [((key.partition(".")[2] or key).lower(), value) for key, value in tls.items()]
    min_protocol, max_protocol = _protocols(commands, gaps)
    ciphers = [value for name, value in commands if name == "cipherstring"]
    levels = [level for value in ciphers for level in _LEVEL.findall(value)]  # each is applied when it is read
    providers = _section(sections, start.get("providers", ""))
    algorithms = _section(sections, start.get("alg_section", ""))
    properties = algorithms.get("default_properties", "").replace(" ", "")
    policy = {
        "file": file,
        "min_protocol": min_protocol,
        "max_protocol": max_protocol,
        "cipher_string": ciphers[-1] if ciphers else "",
        "security_level": int(levels[-1]) if levels else None,
        "legacy_provider": _is_active(sections, providers, "legacy", version),
        "fips": "fips=yes" in properties
        or algorithms.get("fips_mode", "").lower() in _TRUE
        or _is_active(sections, providers, "fips", version),
        "unsafe_options": _unsafe_options(commands),
    }
    return gaps.complete(policy)


def _unsafe_options(commands: Iterable[tuple[str, str]]) -> list[str]:
    """Returns the unsafe options that are on after all commands; `-` switches one off."""
    found: dict[str, str] = {}
    for option in (item.strip() for name, value in commands if name == "options" for item in value.split(",")):
        name = option.lstrip("+-")
        if option.startswith("-"):
            found.pop(name.lower(), None)
        elif name.lower() in _UNSAFE:
            found[name.lower()] = name
    return sorted(found.values())


def _protocols(commands: Iterable[tuple[str, str]], gaps: GapRecorder) -> tuple[str, str]:
    """Returns the lowest and the highest version of TLS that the commands leave, empty for the library's default.

    A DTLS version changes nothing for TLS. `Protocol` switches single versions off and on again.
    """
    bounds = {"minprotocol": "", "maxprotocol": ""}
    switched_off: set[str] = set()
    for name, value in commands:
        if name in bounds and value in {"None", *_TLS_VERSIONS}:
            bounds[name] = value
        elif name in bounds and value not in _DTLS_VERSIONS:
            gaps.add(f"not understood: {name} = {value}")
        elif name == "protocol":
            for item in filter(None, map(str.strip, value.split(","))):
                versions = _TLS_VERSIONS if item.lstrip("+-").upper() == "ALL" else (item.lstrip("+-"),)
                if not {*versions} <= {*_TLS_VERSIONS, *_DTLS_VERSIONS, "SSLv2"}:
                    gaps.add(f"not understood: protocol = {value}")
                (switched_off.update if item.startswith("-") else switched_off.difference_update)(versions)
    lowest = bounds["minprotocol"]
    if switched_off:
        first = _TLS_VERSIONS.index(lowest) if lowest in _TLS_VERSIONS else 0
        left = [version for version in _TLS_VERSIONS[first:] if version not in switched_off]
        lowest = left[0] if left and (lowest or left[0] != _TLS_VERSIONS[0]) else lowest
    return lowest, bounds["maxprotocol"]


def _section(sections: Mapping[str, Mapping[str, str]], name: str) -> Mapping[str, str]:
    return sections.get(name.strip(), {})


def _is_active(
    sections: Mapping[str, Mapping[str, str]], providers: Mapping[str, str], name: str, version: str
) -> bool:
    """Whether a provider is activated; before OpenSSL 3.3 any value of `activate` does it, 0 too."""
    section = _section(sections, providers.get(name, ""))
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return "activate" in section and (numbers < _FIRST_TO_READ_ACTIVATE or section["activate"].lower() in _TRUE)
