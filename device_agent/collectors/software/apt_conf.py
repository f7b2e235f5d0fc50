"""Parses apt's configuration files, as far as needed to look up single settings."""

import re
from collections.abc import Iterator
from typing import Final

from device_agent.host.files import list_files, read_text
from device_agent.host.system import System

MAX_DEPTH: Final = 16  # nested blocks
# An unterminated comment takes the rest of the text, so that matching takes linear time.
_TOKEN: Final = re.compile(
    r"//[^\n]*|#(?!clear|include)[^\n]*|/\*(?:.*?\*/|.*)"
    r'|"(?P<text>[^"]*)"?|(?P<mark>[{};])|(?P<word>(?:(?!//|/\*)[^\s{};"])+)',
    re.DOTALL,
)
_TRUE: Final = frozenset({"1", "yes", "true", "with", "on", "enable"})


def settings(system: System) -> dict[str, str]:
    """Returns the value of every setting by its full name in lower case; the last one wins, lists are left out."""
    values: dict[str, str] = {}
    parts = list_files(system.path("/etc/apt/apt.conf.d"))
    for path in (*parts, system.path("/etc/apt/apt.conf")):
        # apt ignores other names, such as backup files of an editor.
        if path.name == "apt.conf" or re.fullmatch(r"[A-Za-z0-9_-]+(\.conf)?", path.name):
            values.update(parse(read_text(path)))
    return values


def is_true(value: str) -> bool:
    """Whether apt interprets the value as true."""
    return value.strip().lower() in _TRUE


def parse(text: str) -> Iterator[tuple[str, str]]:
    """Yields name (lower case) and value of each setting of a file; skips malformed parts."""
    scopes: list[str] = []
    words: list[str] = []
    for match in _TOKEN.finditer(text):
        mark = match["mark"]
        if mark is None:
            word = match["text"] if match["text"] is not None else match["word"]
            if word is not None and len(words) < 3:
                words.append(word)
            continue
        if mark == "{" and len(scopes) < MAX_DEPTH:
            scopes.append(words[0].lower() if words else "")
        elif mark == "}" and scopes:
            scopes.pop()
        elif mark == ";" and len(words) == 2 and not words[0].startswith("#"):
            yield "::".join([*filter(None, scopes), words[0].lower()]), words[1]
        words = []
