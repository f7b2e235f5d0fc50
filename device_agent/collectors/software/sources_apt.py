"""The package sources of apt, in both of its formats."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from device_agent.collectors.reading import GapRecorder
from device_agent.collectors.software import apt_conf
from device_agent.host.files import files_in, text_of
from device_agent.host.system import System

_LINE: Final = re.compile(r"^(?P<type>deb(?:-src)?)\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<url>[^\s\[\]]+)\s+\S")
_NO: Final = frozenset({"no", "0", "false", "off", "without", "disable"})
# Option of a source, and the word that weakens it.
_WEAKENING: Final = (
    ("trusted", True),
    ("allow-insecure", True),
    ("allow-weak", True),
    ("allow-downgrade-to-insecure", True),
    ("check-valid-until", False),
    ("check-date", False),
)
_WEAKENING_ALL: Final = (
    "apt::get::allowunauthenticated",
    "acquire::allowinsecurerepositories",
    "acquire::allowweakrepositories",
    "acquire::allowdowngradetoinsecurerepositories",
)
_UNSIGNED: Final = ("trusted=", "allow-insecure=", "apt::get::allowunauthenticated", "acquire::allowinsecure")


def entries(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    """Every source, in order of file and line."""
    everywhere = _weakened_everywhere(system)
    found = []
    more = files_in(system.path("/etc/apt/sources.list.d"))
    main = system.path("/etc/apt/sources.list")
    for path in [main, *(path for path in more if path.suffix in (".list", ".sources"))]:
        name = "/" + str(path.relative_to(system.root))
        with gaps.told(name):
            text = text_of(path)
            parts = stanzas(text) if path.suffix == ".sources" else lines(text)
            for line, kind, url, options in parts:
                found.append(_entry(f"{path.name}:{line}", name, kind, url, options, everywhere))
    return found


def keyrings(system: System) -> list[str]:
    """The keys that are believed for any source that names none of its own."""
    rings = [path for path in files_in(system.path("/etc/apt/trusted.gpg.d")) if path.suffix in (".gpg", ".asc")]
    old = system.path("/etc/apt/trusted.gpg")
    return ["/" + str(path.relative_to(system.root)) for path in [*([old] if old.is_file() else []), *rings]]


def lines(text: str) -> Iterator[tuple[int, str, str, Mapping[str, str]]]:
    """Number, type, address and options of each line of a `.list` file."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.match(line.strip())
        if match is not None:
            pairs = (option.partition("=") for option in (match["options"] or "").split())
            yield number, match["type"], match["url"], {key.lower().rstrip("+-"): value for key, _, value in pairs}


def stanzas(text: str) -> Iterator[tuple[int, str, str, Mapping[str, str]]]:
    """Line, types, address and fields, in lower case, of each address of a `.sources` file."""
    fields: dict[str, str] = {}
    start, last = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            for url in fields.get("uris", "").split():
                yield start, " ".join(fields.get("types", "").split()), url, fields
            fields, start, last = {}, 0, ""
        elif line[0] in " \t":
            if last:
                fields[last] += "\n" + line.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            last, start = key.strip().lower(), start or number
            fields[last] = value.strip()


def _entry(
    name: str, file: str, kind: str, url: str, options: Mapping[str, str], everywhere: list[str]
) -> dict[str, Any]:
    flags = []
    for option, is_bad in _WEAKENING:
        value = options.get(option, "").strip()
        if value and (apt_conf.is_true(value) if is_bad else value.lower() in _NO):
            flags.append(f"{option}={value}"[:64])
    flags += everywhere
    key = options.get("signed-by", "").strip()
    return {
        "name": name,
        "file": file,
        "url": url,
        "enabled": options.get("enabled", "yes").strip().lower() not in _NO and kind != "",
        "signed": not any(flag.startswith(_UNSIGNED) for flag in flags),
        "key": "a key written beside it" if "BEGIN PGP" in key else key[:512],
        "flags": flags,
    }


def _weakened_everywhere(system: System) -> list[str]:
    known = apt_conf.settings(system)
    return [f"{name}={known[name]}"[:96] for name in _WEAKENING_ALL if apt_conf.is_true(known.get(name, ""))]
