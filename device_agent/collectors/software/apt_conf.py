"""apt's settings: as `apt-config` prints them for the running system, else as its files say."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from device_agent.collectors.software.config_files import matching_files
from device_agent.host.execute import ExecuteError, run
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

MAX_DEPTH: Final = 16  # nested blocks
# An unterminated comment takes the rest of the text, so that matching takes linear time.
_TOKEN: Final = re.compile(
    r"//[^\n]*|#(?!clear|include)[^\n]*|/\*(?:.*?\*/|.*)"
    r'|"(?P<text>[^"]*)(?P<end>"?)|(?P<mark>[{};])|(?P<word>(?:(?!//|/\*)[^\s{};"])+)',
    re.DOTALL,
)
_DUMPED: Final = re.compile(r'^(?P<name>\S+) "(?P<value>.*)";$')
_NUMBER: Final = re.compile(r"\s*\+?(?:0[xX]0*|0*)([01])", re.ASCII)
_TRUE: Final = frozenset({"yes", "true", "with", "on", "enable"})
_FALSE: Final = frozenset({"no", "false", "without", "off", "disable", "", "-0"})
# Settings that say where the other files are.
_PLACES: Final = ("dir::etc", "dir::state", "dir::bin", "dir")


@dataclass(slots=True)
class AptSettings:
    """The values of settings, and the items of lists, by full name in lower case."""

    values: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def is_on(self, name: str, *, default: bool = False) -> bool:
        """Returns a setting that is on or off; the default for any other value, as apt does."""
        value = to_bool(self.values.get(name, "?"))
        return default if value is None else value

    def set(self, name: str, value: str) -> None:
        """Sets a value, or adds to a list if the name ends with `::`."""
        if name.endswith("::"):
            self.lists.setdefault(name.removesuffix("::"), []).append(value)
        else:
            self.values[name] = value

    def clear(self, name: str) -> None:
        """Removes a setting and those below it."""
        for known in (self.values, self.lists):
            for key in [key for key in known if key == name or key.startswith(f"{name}::")]:
                del known[key]


def read_settings(system: System) -> Reading[AptSettings]:
    """Returns all settings; in files, the last value counts."""
    gaps = GapRecorder()
    settings = AptSettings()
    if system.is_live and shutil.which("apt-config"):
        try:
            return gaps.complete(parse_dump(run(["apt-config", "dump"]).stdout, gaps))
        except ExecuteError as e:
            gaps.add(str(e))
    for file, text in matching_files(system, ("/etc/apt/apt.conf.d/*", "/etc/apt/apt.conf"), gaps):
        # apt ignores other names, such as backup files of an editor.
        if re.fullmatch(r"[A-Za-z0-9_-]+|[A-Za-z0-9_.-]+\.conf", file.rpartition("/")[2]):
            for name, value in parse(text, gaps, file):
                settings.clear(value) if name == "#clear" else settings.set(name, value)
    for place in _PLACES:
        if any(name == place or name.startswith(f"{place}::") for name in settings.values if "cache" not in name):
            gaps.add(f"the setting {place} moves other files of apt")
            break
    return gaps.complete(settings)


def to_bool(value: str) -> bool | None:
    """Interprets a value as apt does; None if it is neither on nor off."""
    word = value.lower()
    number = _NUMBER.fullmatch(value)
    if number is not None:
        return number[1] == "1"
    return True if word in _TRUE else False if word in _FALSE else None


def parse_dump(text: str, gaps: GapRecorder) -> AptSettings:
    """Parses the output of `apt-config dump`."""
    settings = AptSettings()
    for number, line in enumerate(text.split("\n"), start=1):
        match = _DUMPED.match(line)
        if match is not None:
            settings.set(match["name"].lower(), match["value"])
        elif line:
            gaps.add("not a setting", f"apt-config, line {number}")
    return settings


def parse(text: str, gaps: GapRecorder, source: str) -> Iterator[tuple[str, str]]:
    """Yields name (lower case) and value of each setting of a file.

    The name of an item of a list ends with `::`; the name `#clear` has as value what is removed.
    """
    scopes: list[str] = []
    words: list[str] = []
    for match in _TOKEN.finditer(text):
        mark = match["mark"]
        if mark is None:
            word = match["text"] if match["text"] is not None else match["word"]
            if word is not None:
                words.append(word)
            if match["end"] == "":
                gaps.add("a quotation does not end", source)
            continue
        if mark == ";" or len(words) > 1:
            yield from _setting(scopes, words, gaps, source)
        if (mark == "}" and (words or not scopes)) or (mark == "{" and not 1 <= len(words) <= 2):
            gaps.add(f"misplaced {mark}", source)
        if mark == "{":
            scopes.append(words[0].lower() if words and len(scopes) < MAX_DEPTH else "")
        elif mark == "}":
            del scopes[-1:]
        words = []
    if words or scopes:
        gaps.add("the file ends within a setting", source)


def _setting(scopes: list[str], words: list[str], gaps: GapRecorder, source: str) -> Iterator[tuple[str, str]]:
    if not words:
        return
    if len(words) == 1 and scopes:
        yield _full_name(scopes, "") + "::", words[0]
    elif words[0] == "#clear":
        for word in words[1:]:
            yield "#clear", _full_name(scopes, word.lower())
    elif len(words) != 2 or words[0].startswith("#"):
        gaps.add(f"not a setting: {' '.join(words)[:60]}", source)
    else:
        yield _full_name(scopes, words[0].lower()), words[1]


def _full_name(scopes: list[str], name: str) -> str:
    return "::".join(filter(None, [*(scope.strip(":") for scope in scopes), name]))
