"""Who becomes root by sudo without a password, from sudoers and its includes.

The includes are resolved here, so that nothing outside the examined root is read; `cvtsudoers` parses the joined text
where it is installed. Each line that it refuses is a gap: sudo since 1.9 skips it, older ones refuse the whole file.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from device_agent.collectors.access.sudoers_grammar import expanded, read_lines
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import MAX_FILE_BYTES
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

_PATHS: Final = ("/etc/sudoers", "/usr/etc/sudoers")  # sudo reads the first that exists
_PATHS_OF_SUDO_RS: Final = ("/etc/sudoers-rs",)  # which it reads instead; both programs may be installed
_MAX_DEPTH: Final = 128  # nested includes, as in sudo
_SECONDS: Final = 10.0
_ARGV: Final = ("cvtsudoers", "-f", "json", "-c", "/dev/null", "-")

_INCLUDE: Final = re.compile(r'^[@#](include|includedir)[ \t]+(?:"([^"\n]*)"|((?:\\.|[^\s\\"])+))[ \t]*(?:#.*)?$')
_LOOKS_LIKE_INCLUDE: Final = re.compile(r"^[@#]include(?:dir)?(?:[ \t]|$)")
_NUMBER: Final = re.compile(r"#-?\d")  # of a user or group; sudo takes none for a comment
_ESCAPE: Final = re.compile(r"\\(.)")
_REFUSED: Final = re.compile(r"^(?:cvtsudoers: )?stdin:(\d+)(?::\d+)?: (.+)$", re.MULTILINE)
_IGNORED: Final = "unknown defaults entry"  # sudo warns of it and goes on


def users_without_password(system: System) -> Reading[list[str]]:
    """Returns users (`ada`, `#1000`), groups (`%wheel`) and Defaults that sudo does not ask for a password."""
    gaps = GapRecorder()
    names: set[str] = set()
    path = next((path for path in _PATHS if system.path(path).exists()), _PATHS[0])
    for one in (path, *(path for path in _PATHS_OF_SUDO_RS if system.path(path).exists())):
        lines: list[tuple[str, str]] = []
        with gaps.capture(one):
            lines = list(_joined(system, one, gaps, IncludeBudget(system, _MAX_DEPTH)))
        found = _from_program(lines, gaps) if lines and shutil.which(_ARGV[0]) is not None else None
        names |= read_lines(lines, gaps) if found is None else found
    return gaps.complete(sorted(names))


def _joined(
    system: System, path: str, gaps: GapRecorder, budget: IncludeBudget, depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Yields `file:line` and text of every logical line of a file and its includes."""
    if not system.path(path).exists():
        if depth:
            gaps.add("the included file is missing", path)
        return
    text, is_whole = budget.beginning(system.path(path), depth)
    if not is_whole:
        gaps.add(f"only the first {MAX_FILE_BYTES} bytes were read", path)
    for number, line in _logical_lines(text):
        source = f"{path}:{number}"
        include = _INCLUDE.match(line)
        if include is None:
            if _LOOKS_LIKE_INCLUDE.match(line):
                gaps.add("the include is not understood", source)
            else:
                yield source, line
            continue
        target = include[2] if include[2] is not None else _ESCAPE.sub(r"\1", include[3])
        if "%h" in target:
            gaps.add("the name of the included file depends on the host", source)
            continue
        if not target.startswith("/"):
            target = f"{path.rpartition('/')[0]}/{target}"
        with gaps.capture(target):
            yield from _included(system, target, gaps, budget, depth, is_folder=include[1] == "includedir")


def _included(
    system: System, target: str, gaps: GapRecorder, budget: IncludeBudget, depth: int, *, is_folder: bool
) -> Iterator[tuple[str, str]]:
    if not is_folder:
        yield from _joined(system, target, gaps, budget, depth + 1)
        return
    for file in budget.files_in(system.path(target)):
        # sudo ignores names with a dot or a trailing tilde.
        if "." not in file.name and not file.name.endswith("~"):
            yield from _joined(system, f"{target.rstrip('/')}/{file.name}", gaps, budget, depth + 1)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines, continued lines joined, comments and blank lines left out."""
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if pending else number
        if line.endswith("\\") and not line.endswith("\\\\"):
            pending += line[:-1] + " "
            continue
        whole = _without_comment(pending + line)
        pending = ""
        if whole:
            yield first, whole
    if whole := _without_comment(pending):
        yield first, whole


def _without_comment(line: str) -> str:
    """Removes a comment: `#` outside of quotes that neither is escaped, nor has a number behind it, nor includes."""
    bare = line.strip()
    if _LOOKS_LIKE_INCLUDE.match(bare):
        return bare
    in_quotes, at = False, 0
    while at < len(bare):
        sign = bare[at]
        if sign == "\\":
            at += 1
        elif sign == '"':
            in_quotes = not in_quotes
        elif sign == "#" and not in_quotes and not _NUMBER.match(bare, at):
            return bare[:at].strip()
        at += 1
    return bare


def _from_program(lines: list[tuple[str, str]], gaps: GapRecorder) -> set[str] | None:
    """Returns the names as `cvtsudoers` parses the text; None, and a gap for what it refuses, without its answer."""
    text = "\n".join(line for _, line in lines) + "\n"
    try:
        result = run(_ARGV, seconds=_SECONDS, stdin=text.encode(), ok_statuses=frozenset({0, 1}))
        complaints = [found for found in _REFUSED.findall(result.stderr) if not found[1].startswith(_IGNORED)]
        for number, reason in complaints:
            gaps.add(f"cvtsudoers: {reason}", lines[min(int(number), len(lines)) - 1][0])
        if result.status or complaints:
            if not complaints:
                gaps.add("cvtsudoers refuses the text")
            return None
        return _names_of(json.loads(result.stdout))
    except (ExecuteError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _names_of(policy: Mapping[str, Any]) -> set[str]:
    aliases = {name: [_member(one) for one in members] for name, members in policy.get("User_Aliases", {}).items()}
    users = expanded(_rule_names(policy.get("User_Specs", [])), aliases)
    return {*_default_names(policy.get("Defaults", [])), *users}


def _default_names(defaults: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    free: dict[str, bool] = {}
    for entry in defaults:
        binding = ",".join(_member(member) for member in entry.get("Binding", []))
        for option in entry["Options"]:
            if option.get("authenticate") is not None:
                free[f"Defaults:{binding}" if binding else "Defaults"] = option["authenticate"] is False
            elif option.get("exempt_group"):
                yield f"%{option['exempt_group']}"
    yield from (name for name, is_free in free.items() if is_free)


def _rule_names(rules: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for rule in rules:
        options = [option for spec in rule["Cmnd_Specs"] for option in spec.get("Options", [])]
        if any(option.get("authenticate") is False for option in options):
            yield from (_member(member) for member in rule["User_List"])


_PREFIXES: Final[Mapping[str, str]] = {
    "username": "", "userid": "#", "usergroup": "%", "usergid": "%#", "nonunixgroup": "%:", "nonunixgid": "%:#",
    "netgroup": "+", "useralias": "",
}  # fmt: skip


def _member(member: Mapping[str, Any]) -> str:
    kind = next(key for key in member if key != "negated")
    return f"{'!' if member.get('negated') else ''}{_PREFIXES.get(kind, '')}{member[kind]}"
