"""Package sources of apt, in the `.list` and the `.sources` format."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from device_agent.collectors.software.apt_conf import AptSettings, read_settings, to_bool
from device_agent.collectors.software.config_files import matching_files
from device_agent.host.apt import index_targets, parse_targets
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import list_files
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_SECONDS: Final = 50.0
_TYPES: Final = frozenset({"deb", "deb-src"})
_FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(list|sources)", re.ASCII)
# Options of a source, and whether setting (True) or clearing (False) the option weakens it.
_WEAKENING: Final = (
    ("trusted", True),
    ("allow-insecure", True),
    ("allow-weak", True),
    ("allow-downgrade-to-insecure", True),
    ("check-valid-until", False),
    ("check-date", False),
)
# Settings for every source, likewise.
_WEAKENING_SETTINGS: Final = (
    ("apt::get::allowunauthenticated", True),
    ("acquire::allowinsecurerepositories", True),
    ("acquire::allowweakrepositories", True),
    ("acquire::allowdowngradetoinsecurerepositories", True),
    ("acquire::check-valid-until", False),
    ("acquire::check-date", False),
)
# Acquire::https::Verify-Peer; with the name of a host for this host alone; those of http count for https too.
_VERIFY: Final = re.compile(r"acquire::[a-z+]*https?::(?:(?P<host>\S+)::)?verify-(?:peer|host)")
_UNSIGNED: Final = ("trusted=", "allow-insecure=", "apt::get::allowunauthenticated", "acquire::allowinsecure")
_MIRROR_LINE: Final = re.compile(r"^\s*([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class AptSource:
    """One address of an entry: its line, or the first line of its stanza; options by lower-case name."""

    line: int
    kind: str
    url: str
    options: Mapping[str, str]
    is_enabled: bool = True


def entries(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    """Returns every source, in the order of files and lines."""
    settings = gaps.take(read_settings(system))
    rows = []
    for file, text in matching_files(system, ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*"), gaps):
        name = file.rpartition("/")[2]
        if _FILE.fullmatch(name):
            read = stanzas if name.endswith(".sources") else lines
            rows += [_entry(system, source, file, settings, gaps) for source in read(text, gaps, file)]
    if system.is_live:
        _compare(system, rows, gaps)
    return rows


def keyrings(system: System) -> list[str]:
    """Returns the keyrings that apt trusts for every source without a key of its own."""
    rings = [path for path in list_files(system.path("/etc/apt/trusted.gpg.d")) if path.suffix in (".gpg", ".asc")]
    legacy = system.path("/etc/apt/trusted.gpg")
    return ["/" + str(path.relative_to(system.root)) for path in [*([legacy] if legacy.is_file() else []), *rings]]


def _compare(system: System, rows: list[dict[str, Any]], gaps: GapRecorder) -> None:
    """Records what apt itself uses on the running system and was not found in the files."""
    try:
        targets = parse_targets(run(index_targets(system), seconds=_SECONDS).stdout)
    except ExecuteError as e:
        if "not installed" not in str(e):
            gaps.add(str(e))
        return
    found = {row["url"].rstrip("/") for row in rows if row["enabled"]}
    begun = tuple(url.partition("$(")[0] for url in found if "$(" in url)  # $(ARCH)
    for target in targets:
        if target.uri.rstrip("/") not in found and not target.uri.startswith(("cdrom:", *begun)):
            gaps.add("apt uses a source that was not understood", target.entry)


def lines(text: str, gaps: GapRecorder, file: str) -> Iterator[AptSource]:
    """Yields the source of each line of a `.list` file."""
    for number, line in enumerate(text.split("\n"), start=1):
        bare = _without_comment(line).strip()
        if bare:
            with gaps.capture(f"{file}, line {number}"):
                yield _parse_line(number, bare)


def _without_comment(line: str) -> str:
    position = 0
    while position < len(line) and line[position] != "#":
        if line[position] == "[":
            position = max(position, line.find("]", position + 1))
        position += 1
    return line[:position]


def _parse_line(number: int, line: str) -> AptSource:
    kind, rest = _word(line)
    if kind not in _TYPES:
        raise ValueError("not a type of source")
    options: dict[str, str] = {}
    if rest.startswith("["):
        options, rest = _options(rest[1:].lstrip())
    url, rest = _word(rest)
    suite, rest = _word(rest)
    if ":" not in url or not suite or suite.endswith("/") == bool(rest):
        raise ValueError("not a source")
    return AptSource(number, kind, url, options)


def _word(text: str) -> tuple[str, str]:
    """Returns the next word, without its quotation marks and with `%xx` replaced, and the rest."""
    end = 0
    while end < len(text) and not text[end].isspace():
        if (close := {'"': '"', "[": "]"}.get(text[end])) is not None:
            end = text.find(close, end + 1)
            if end < 0:
                raise ValueError("a quotation or bracket does not end")
        end += 1
    word = re.sub(r"%([0-9A-Fa-f]{2})|\"", lambda match: chr(int(match[1], 16)) if match[1] else "", text[:end])
    return word, text[end:].lstrip()


def _options(text: str) -> tuple[dict[str, str], str]:
    options: dict[str, str] = {}
    while not text.startswith("]"):
        if not text:
            raise ValueError("the options do not end")
        # The last option may have no space before the bracket.
        word, rest = _word(text)
        if word.endswith("]"):
            word, rest = word[:-1], text[text.index("]") :]
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise ValueError("not an option of a source")
        options[key.lower().rstrip("+-")] = value
        text = rest
    return options, text[1:].lstrip()


def stanzas(text: str, gaps: GapRecorder, file: str) -> Iterator[AptSource]:
    """Yields a source for each type and address of each stanza of a `.sources` file."""
    fields: dict[str, str] = {}
    start, last = 0, ""
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip("\r"):
            with gaps.capture(f"{file}, line {start}"):
                yield from _stanza(start, fields) if fields else ()
            fields, start, last = {}, 0, ""
        elif line[0] in " \t" and last:
            fields[last] += "\n" + line.strip()
        elif ":" in line and line[0] not in " \t:":
            key, _, value = line.partition(":")
            last, start = key.strip().lower(), start or number
            if last in fields:
                gaps.add(f"a second {last}", f"{file}, line {number}")
            fields[last] = value.strip()
        else:
            gaps.add("not a field of a source", f"{file}, line {number}")


def _stanza(start: int, fields: Mapping[str, str]) -> list[AptSource]:
    types, urls, suites = (fields.get(key, "").split() for key in ("types", "uris", "suites"))
    components = fields.get("components", "").split()
    enabled = fields.get("enabled", "")
    is_enabled = not enabled or to_bool(enabled) is not False
    if is_enabled:
        if not types or not _TYPES.issuperset(types) or not urls or not suites:
            raise ValueError("a stanza without type, address or suite")
        if any(":" not in url for url in urls) or any(suite.endswith("/") == bool(components) for suite in suites):
            raise ValueError("not a source")
    return [AptSource(start, " ".join(types), url, fields, is_enabled) for url in urls]


def _entry(system: System, source: AptSource, file: str, settings: AptSettings, gaps: GapRecorder) -> dict[str, Any]:
    options = source.options
    flags = [
        f"{option}={options[option].strip()}"[:64]
        for option, is_weak_when_set in _WEAKENING
        if options.get(option, "").strip() and _is_on(options[option]) is is_weak_when_set
    ]
    flags += [
        f"{name}={settings.values[name]}"[:96]
        for name, is_weak_when_set in _WEAKENING_SETTINGS
        if settings.is_on(name, default=not is_weak_when_set) is is_weak_when_set
    ]
    transport = _transport(system, source.url, gaps if source.is_enabled else GapRecorder())
    flags += [f"{name}={settings.values[name]}"[:96] for name in _unverified(settings, source.url)]
    key = options.get("signed-by", "").strip()
    return {
        "name": f"{file.rpartition('/')[2]}:{source.line}",
        "file": file,
        "url": source.url,
        "enabled": source.is_enabled,
        "signed": not any(flag.startswith(_UNSIGNED) for flag in flags),
        "key": "embedded key" if "BEGIN PGP" in key else key[:512],
        "flags": flags[:16],
        **({"transport": transport} if transport else {}),
    }


def _is_on(value: str) -> bool:
    # A value that is neither counts as off.
    return to_bool(value.strip()) is True


def _unverified(settings: AptSettings, url: str) -> Iterator[str]:
    """Yields the settings that keep apt from checking the certificate of this address."""
    scheme, _, rest = url.partition(":")
    if "https" not in scheme.lower() and not scheme.lower().startswith("mirror"):
        return
    host = rest.lstrip("/").partition("/")[0].rpartition("@")[2].partition(":")[0].lower()
    for name in settings.values:
        match = _VERIFY.fullmatch(name)
        if match is not None and match["host"] in (None, host) and not settings.is_on(name, default=True):
            yield name


def _transport(system: System, url: str, gaps: GapRecorder) -> str:
    """Returns how packages are fetched where the scheme of the URL does not say it; empty where it does."""
    scheme, _, rest = url.partition(":")
    method, _, inner = scheme.lower().partition("+")
    if method == "tor":
        host = rest.lstrip("/").partition("/")[0].partition(":")[0]
        return "tor" if host.endswith(".onion") else inner or "http"
    if method != "mirror":
        return ""
    if inner in ("", "http"):
        return "http"
    path = "/" + rest.lstrip("/")
    texts = [text for _, text in matching_files(system, (path.rstrip("/"),), gaps)] if inner == "file" else []
    schemes = {match[1].lower() for text in texts for line in text.split("\n") if (match := _MIRROR_LINE.match(line))}
    if not schemes:
        gaps.add("the list of mirrors cannot be read", url)
    # The weakest of several mirrors is the one that matters.
    return next((scheme for scheme in ("http", "ftp", *sorted(schemes)) if scheme in schemes), inner)
