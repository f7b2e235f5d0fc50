"""Switches a package source off, in the file of apt, dnf, apk or opkg that names it."""

import re
from typing import Final

from device_agent.actions.base import ActionError, Params, only, text
from device_agent.actions.edit import FileAction, FileContents, read

_SOURCE: Final = re.compile(r"^[A-Za-z0-9][^\s'\"\\]{1,250}$|^/[^\s'\"\\]{1,250}$")
_OFF: Final = "#<cordon># "
_MAX_FILES: Final = 64
# Where each package manager names its sources, and how its files are read.
_PLACES: Final = (
    ("/etc/apt/sources.list", "", "line"),
    ("/etc/apt/sources.list.d", ".list", "line"),
    ("/etc/apt/sources.list.d", ".sources", "stanza"),
    ("/etc/yum.repos.d", ".repo", "section"),
    ("/etc/apk/repositories", "", "line"),
    ("/etc/opkg.conf", "", "line"),
    ("/etc/opkg", ".conf", "line"),
)
_ENABLED: Final = re.compile(r"^enabled\s*:", re.IGNORECASE)


class DisableSource(FileAction):
    """`source.disable {source}`: by its address as the report has it, or by the id that a .repo file gives it."""

    def check(self, params: Params) -> None:
        """One parameter, `source`: one word."""
        only(params, "source")
        text(params, "source", _SOURCE, "the address or id of a package source")

    def wanted(self, params: Params) -> FileContents:
        """Every file that names the source, with it switched off there."""
        source = str(params["source"]).rstrip("/")
        texts: dict[str, str | None] = {}
        is_named = False
        for place, kind in self._files():
            before = read(self._system, place)
            if before is None or source not in before:
                continue
            is_named = True
            after = {"line": _lines, "stanza": _stanzas, "section": _sections}[kind](before, source)
            if after != before:
                texts[place] = after
        if not is_named:
            raise ActionError(f"no package source {source} is configured")
        return texts

    def state(self, params: Params) -> str:
        """Whether any file still has it switched on."""
        return "enabled" if self.wanted(params) else "disabled"

    def would(self, params: Params, places: list[str]) -> str:
        """The source and the files."""
        return f"switch {params['source']} off in {', '.join(places)}"

    def _files(self) -> list[tuple[str, str]]:
        found = []
        for place, suffix, kind in _PLACES:
            path = self._system.path(place)
            if suffix and path.is_dir():
                found += [(f"{place}/{one.name}", kind) for one in sorted(path.iterdir()) if one.suffix == suffix]
            elif not suffix and path.is_file():
                found.append((place, kind))
        if len(found) > _MAX_FILES:
            raise ActionError(f"more than {_MAX_FILES} files of package sources")
        return found


def _same(word: str, source: str) -> bool:
    return word.rstrip("/") == source


def _lines(before: str, source: str) -> str:
    """A line each: apt's one-line style, apk, opkg."""
    lines = []
    for line in before.splitlines(keepends=True):
        is_named = not line.lstrip().startswith("#") and any(_same(word, source) for word in line.split())
        lines.append(_OFF + line if is_named else line)
    return "".join(lines)


def _stanzas(before: str, source: str) -> str:
    """deb822: `Enabled: no` in each stanza of that address."""
    blocks = re.split(r"(\n[ \t]*\n+)", before)
    return "".join(_stanza(block, source) for block in blocks)


def _stanza(block: str, source: str) -> str:
    lines = block.splitlines(keepends=True)
    named, is_off, key = False, False, ""
    for line in lines:
        if line.startswith("#"):
            continue
        words = line.split()
        if not line[:1].isspace() and ":" in line:
            key, _, rest = line.partition(":")
            words = rest.split()
            is_off = is_off or (_ENABLED.match(line) is not None and words[:1] in (["no"], ["false"]))
        named = named or (key.lower() == "uris" and any(_same(word, source) for word in words))
    if not named or is_off:
        return block
    return "".join(["Enabled: no\n", *(line for line in lines if not _ENABLED.match(line))])


def _sections(before: str, source: str) -> str:
    """A .repo file: `enabled=0` in the section of that id or address."""
    parts = re.split(r"(?m)^(?=\[)", before)
    return "".join(_section(part, source) for part in parts)


def _section(part: str, source: str) -> str:
    lines = part.splitlines(keepends=True)
    if not lines or not lines[0].startswith("["):
        return part
    options = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines[1:])}
    addresses = [options.get(key, "") for key in ("baseurl", "metalink", "mirrorlist")]
    if lines[0].strip() != f"[{source}]" and not any(_same(one, source) for one in addresses):
        return part
    if options.get("enabled") == "0":
        return part
    rest = [line for line in lines[1:] if line.partition("=")[0].strip() != "enabled"]
    return "".join([lines[0] if lines[0].endswith("\n") else lines[0] + "\n", "enabled=0\n", *rest])
