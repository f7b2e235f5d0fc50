"""What openssl.cnf asks for: protocols, security level, providers; read as the library reads it, includes and all."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from device_agent.host.files import files_in, text_of
from device_agent.host.system import System

PLACES: Final = (
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/local/ssl/openssl.cnf",
    "/usr/local/etc/ssl/openssl.cnf",
)
MAX_INCLUDES: Final = 32  # files of one reading
MAX_VALUE: Final = 512  # letters of a value, variables replaced
_DEFAULT: Final = "default"
_VARIABLE: Final = re.compile(r"\$(?:(\w+)::)?(?:\{(\w+)\}|\((\w+)\)|(\w+))")
_LEVEL: Final = re.compile(r"@SECLEVEL=([0-5])(?![0-9])")
_ON: Final = frozenset({"1", "yes", "true", "on", "y"})
# Words of `Options` (and flags of old) that weaken TLS.
_UNSAFE: Final = frozenset({"unsafelegacyrenegotiation", "unsafelegacyserverconnect", "allownoenckeyexchange"})

ConfigSections = dict[str, dict[str, str]]


def file_of(system: System, told_folder: str) -> str | None:
    """The file in use: in the folder that the program itself tells, or in one of the usual places."""
    places = (f"{told_folder}/openssl.cnf", *PLACES) if told_folder else PLACES
    return next((place for place in places if system.path(place).is_file()), None)


def read(system: System, file: str) -> dict[str, Any]:
    """The fields of `OpensslConfig`.

    Raises:
        OSError: it cannot be read.
    """
    return judge(file, sections_of(system, file))


def sections_of(system: System, file: str) -> ConfigSections:
    """Every section with its values, the last value counts; includes read in place, cycles once."""
    sections: ConfigSections = {_DEFAULT: {}}
    _read_into(sections, system, file, _DEFAULT, [MAX_INCLUDES])
    return sections


def _read_into(sections: ConfigSections, system: System, file: str, section: str, left: list[int]) -> str:
    left[0] -= 1
    for line in _lines(text_of(system.path(file))):
        if line.startswith("[") and "]" in line:
            section = line[1 : line.index("]")].strip()
            sections.setdefault(section, {})
        elif line.startswith(".include"):
            place = line.removeprefix(".include").strip().lstrip("=").strip().strip("\"'")
            for found in _included(system, file, place):
                if left[0] > 0:
                    section = _read_into(sections, system, found, section, left)
        elif "=" in line:
            key, _, value = line.partition("=")
            scope, _, name = key.strip().rpartition("::")
            scope = scope or section
            sections.setdefault(scope, {})[name] = _expanded(sections, scope, _unquoted(value))
    return section


def _included(system: System, file: str, place: str) -> list[str]:
    """Files of an include: one, or those of a folder; relative ones lie beside the file."""
    if not place or "\0" in place:
        return []
    absolute = str(PurePosixPath(file).parent / place)
    path = system.path(absolute)
    if path.is_dir():
        named: list[Path] = [one for one in files_in(path) if one.suffix in (".cnf", ".conf")]
        return [f"{absolute.rstrip('/')}/{one.name}" for one in named]
    return [absolute] if path.is_file() else []


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, continued ones joined."""
    held = ""
    for raw in text.splitlines():
        line = re.sub(r"(?<!\\)#.*$", "", raw).rstrip()
        if line.endswith("\\"):
            held = (held + line[:-1])[:MAX_VALUE]
            continue
        whole, held = (held + line).strip(), ""
        if whole:
            yield whole
    if held.strip():
        yield held.strip()


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        value = value[1:-1]
    return value[:MAX_VALUE]


def _expanded(sections: ConfigSections, scope: str, value: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = match[2] or match[3] or match[4]
        if match[1]:
            return sections.get(match[1], {}).get(name, "")
        return sections.get(scope, {}).get(name, sections[_DEFAULT].get(name, ""))

    return _VARIABLE.sub(replacement, value)[:MAX_VALUE] if "$" in value else value


def judge(file: str, sections: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the sections that count say; every other one of the file is for tools such as `openssl req`."""
    start = _section(sections, sections.get(_DEFAULT, {}).get("openssl_conf", ""))
    tls = _section(sections, _section(sections, start.get("ssl_conf", "")).get("system_default", ""))
    wanted = {key.partition(".")[2] or key: value for key, value in tls.items()}
    commands = {key.lower(): value for key, value in wanted.items()}
    ciphers = commands.get("cipherstring", "")
    level = _LEVEL.search(ciphers)
    providers = _section(sections, start.get("providers", ""))
    algorithms = _section(sections, start.get("alg_section", ""))
    properties = algorithms.get("default_properties", "").replace(" ", "")
    words = (word.strip().lstrip("+") for word in commands.get("options", "").split(","))
    return {
        "file": file,
        "min_protocol": commands.get("minprotocol", ""),
        "max_protocol": commands.get("maxprotocol", ""),
        "cipher_string": ciphers,
        "security_level": int(level[1]) if level else None,
        "legacy_provider": _is_on(sections, providers, "legacy"),
        "fips": "fips=yes" in properties
        or algorithms.get("fips_mode", "").lower() in _ON
        or _is_on(sections, providers, "fips"),
        "unsafe_options": sorted({word for word in words if word.lower() in _UNSAFE})[:8],
    }


def _section(sections: Mapping[str, Mapping[str, str]], name: str) -> Mapping[str, str]:
    return sections.get(name.strip(), {})


def _is_on(sections: Mapping[str, Mapping[str, str]], providers: Mapping[str, str], name: str) -> bool:
    return name in providers and _section(sections, providers[name]).get("activate", "").lower() in _ON
