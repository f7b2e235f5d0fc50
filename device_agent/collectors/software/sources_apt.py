"""Package sources of apt, in the `.list` and the `.sources` format."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from device_agent.collectors.software import apt_conf
from device_agent.host.files import list_files, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_LINE: Final = re.compile(r"^(?P<type>deb(?:-src)?)\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<url>[^\s\[\]]+)\s+\S")
_NO: Final = frozenset({"no", "0", "false", "off", "without", "disable"})
# Options of a source, and whether setting (True) or clearing (False) the option weakens it.
_WEAKENING: Final = (
    ("trusted", True),
    ("allow-insecure", True),
    ("allow-weak", True),
    ("allow-downgrade-to-insecure", True),
    ("check-valid-until", False),
    ("check-date", False),
)
_WEAKENING_SETTINGS: Final = (
    "apt::get::allowunauthenticated",
    "acquire::allowinsecurerepositories",
    "acquire::allowweakrepositories",
    "acquire::allowdowngradetoinsecurerepositories",
)
_UNSIGNED: Final = ("trusted=", "allow-insecure=", "apt::get::allowunauthenticated", "acquire::allowinsecure")


def entries(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    """Returns every source, in the order of files and lines."""
    global_flags = _global_flags(system)
    rows = []
    parts = list_files(system.path("/etc/apt/sources.list.d"))
    main = system.path("/etc/apt/sources.list")
    for path in [main, *(path for path in parts if path.suffix in (".list", ".sources"))]:
        name = "/" + str(path.relative_to(system.root))
        with gaps.capture(name):
            text = read_text(path)
            for line, kind, url, options in stanzas(text) if path.suffix == ".sources" else lines(text):
                rows.append(_entry(f"{path.name}:{line}", name, kind, url, options, global_flags))
    return rows


def keyrings(system: System) -> list[str]:
    """Returns the keyrings that apt trusts for every source without a key of its own."""
    rings = [path for path in list_files(system.path("/etc/apt/trusted.gpg.d")) if path.suffix in (".gpg", ".asc")]
    legacy = system.path("/etc/apt/trusted.gpg")
    return ["/" + str(path.relative_to(system.root)) for path in [*([legacy] if legacy.is_file() else []), *rings]]


def lines(text: str) -> Iterator[tuple[int, str, str, Mapping[str, str]]]:
    """Yields line number, type, URL and options of each line of a `.list` file."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.match(line.strip())
        if match is not None:
            pairs = (option.partition("=") for option in (match["options"] or "").split())
            yield number, match["type"], match["url"], {key.lower().rstrip("+-"): value for key, _, value in pairs}


def stanzas(text: str) -> Iterator[tuple[int, str, str, Mapping[str, str]]]:
    """Yields first line number, types, URL and fields (keys in lower case) for each URL of a `.sources` file."""
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
    name: str, file: str, kind: str, url: str, options: Mapping[str, str], global_flags: list[str]
) -> dict[str, Any]:
    flags = []
    for option, is_weak_when_set in _WEAKENING:
        value = options.get(option, "").strip()
        if value and (apt_conf.is_true(value) if is_weak_when_set else value.lower() in _NO):
            flags.append(f"{option}={value}"[:64])
    flags += global_flags
    key = options.get("signed-by", "").strip()
    return {
        "name": name,
        "file": file,
        "url": url,
        "enabled": options.get("enabled", "yes").strip().lower() not in _NO and kind != "",
        "signed": not any(flag.startswith(_UNSIGNED) for flag in flags),
        "key": "embedded key" if "BEGIN PGP" in key else key[:512],
        "flags": flags,
    }


def _global_flags(system: System) -> list[str]:
    settings = apt_conf.settings(system)
    return [f"{name}={settings[name]}"[:96] for name in _WEAKENING_SETTINGS if apt_conf.is_true(settings.get(name, ""))]
