"""`source.disable`: disables a package source in the files of apt, dnf, apk or opkg."""

import re
from typing import Final

from device_agent.actions.base import ActionError, Params, reject_unknown_params, text_param
from device_agent.actions.edit import FileAction, FileContents, read

_SOURCE: Final = re.compile(r"^[A-Za-z0-9][^\s'\"\\]{1,250}$|^/[^\s'\"\\]{1,250}$")
_OFF: Final = "#<cordon># "
_MAX_FILES: Final = 64
# Files of package sources: path, suffix of files in a folder, format.
_SOURCE_FILES: Final = (
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
    """`source.disable {source}`: by its address as in reports, or by its id in a .repo file."""

    def check(self, params: Params) -> None:
        reject_unknown_params(params, "source")
        text_param(params, "source", _SOURCE, "the address or id of a package source")

    def desired_files(self, params: Params) -> FileContents:
        """Returns every file that names the source, with the source disabled (ActionError: none does)."""
        source = str(params["source"]).rstrip("/")
        texts: dict[str, str | None] = {}
        is_named = False
        for path, kind in self._files():
            text = read(self._system, path)
            if text is None or source not in text:
                continue
            is_named = True
            changed = _DISABLE[kind](text, source)
            if changed != text:
                texts[path] = changed
        if not is_named:
            raise ActionError(f"no package source {source} is configured")
        return texts

    def describe_state(self, params: Params) -> str:
        """Returns whether any file still has the source enabled."""
        return "enabled" if self.desired_files(params) else "disabled"

    def describe_changes(self, params: Params, paths: list[str]) -> str:
        return f"disable {params['source']} in {', '.join(paths)}"

    def _files(self) -> list[tuple[str, str]]:
        files = []
        for name, suffix, kind in _SOURCE_FILES:
            path = self._system.path(name)
            if suffix and path.is_dir():
                files += [(f"{name}/{file.name}", kind) for file in sorted(path.iterdir()) if file.suffix == suffix]
            elif not suffix and path.is_file():
                files.append((name, kind))
        if len(files) > _MAX_FILES:
            raise ActionError(f"more than {_MAX_FILES} files of package sources")
        return files


def _matches_source(word: str, source: str) -> bool:
    return word.rstrip("/") == source


def _disable_list_lines(text: str, source: str) -> str:
    """Comments the source out in a file with one source a line: apt's one-line style, apk, opkg."""
    lines = []
    for line in text.splitlines(keepends=True):
        is_named = not line.lstrip().startswith("#") and any(_matches_source(word, source) for word in line.split())
        lines.append(_OFF + line if is_named else line)
    return "".join(lines)


def _disable_stanzas(text: str, source: str) -> str:
    """Adds `Enabled: no` to each deb822 stanza of that address."""
    blocks = re.split(r"(?m)((?:^[ \t]*\n)+)", text)  # blank lines, also before the first stanza
    return "".join(_disable_stanza(block, source) for block in blocks)


def _disable_stanza(block: str, source: str) -> str:
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
        named = named or (key.lower() == "uris" and any(_matches_source(word, source) for word in words))
    if not named or is_off:
        return block
    return "".join(["Enabled: no\n", *(line for line in lines if not _ENABLED.match(line))])


def _disable_repo_sections(text: str, source: str) -> str:
    """Sets `enabled=0` in the section of a .repo file with that id or address."""
    parts = re.split(r"(?m)^(?=\[)", text)
    return "".join(_disable_repo_section(part, source) for part in parts)


def _disable_repo_section(part: str, source: str) -> str:
    lines = part.splitlines(keepends=True)
    if not lines or not lines[0].startswith("["):
        return part
    options = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines[1:])}
    addresses = [options.get(key, "") for key in ("baseurl", "metalink", "mirrorlist")]
    if lines[0].strip() != f"[{source}]" and not any(_matches_source(address, source) for address in addresses):
        return part
    if options.get("enabled") == "0":
        return part
    rest = [line for line in lines[1:] if line.partition("=")[0].strip() != "enabled"]
    return "".join([lines[0] if lines[0].endswith("\n") else lines[0] + "\n", "enabled=0\n", *rest])


_DISABLE: Final = {"line": _disable_list_lines, "stanza": _disable_stanzas, "section": _disable_repo_sections}
