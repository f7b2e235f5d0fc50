"""Who becomes root by sudo without a password, from sudoers and its includes.

The includes are resolved here, so that nothing outside the examined root is read; `cvtsudoers` parses the joined text
where it is installed. Without it, or where it does not understand the text, the grammar of sudoers(5) is read here.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import MAX_FILE_BYTES, list_files, read_beginning
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

_PATHS: Final = ("/etc/sudoers", "/usr/etc/sudoers")  # sudo reads the first that exists
_MAX_DEPTH: Final = 128  # nested includes, as in sudo
_MAX_BYTES: Final = 4 * MAX_FILE_BYTES  # of all files together
_SECONDS: Final = 10.0
_ARGV: Final = ("cvtsudoers", "-f", "json", "-e", "-c", "/dev/null", "-")

_INCLUDE: Final = re.compile(r'^[@#](include|includedir)[ \t]+(?:"([^"\n]*)"|((?:\\.|[^\s\\"])+))[ \t]*(?:#.*)?$')
_LOOKS_LIKE_INCLUDE: Final = re.compile(r"^[@#]include(?:dir)?(?:[ \t]|$)")
_ESCAPE: Final = re.compile(r"\\(.)")
_ALIAS: Final = re.compile(r"^(User|Runas|Host|Cmnd|Cmd)_Alias[ \t]+(.+)$")
_DEFAULTS: Final = re.compile(r'^Defaults(?:([@:!>])[ \t]*((?:"[^"]*"|\\.|[^\s"\\,]|,[ \t]*)+))?[ \t]+(.+)$')
# A member of a list: quoted, or a word in which white space, commas and other signs are escaped.
_MEMBER: Final = r'(?:!*[ \t]*(?:[%+]:?#?)?"(?:\\.|[^"\\])*"|(?:\\.|[^\s,=:"\\])(?:\\.|[^\s,="\\])*)'
_USERS: Final = re.compile(rf"^({_MEMBER}(?:[ \t]*,[ \t]*{_MEMBER})*)[ \t]+(?=\S)")
_NO_PASSWORD: Final = re.compile(r"(?<![\\\w])NOPASSWD[ \t]*:")
_UID: Final = re.compile(r"[%+]?:?#-?\d")


def users_without_password(system: System) -> Reading[list[str]]:
    """Returns users (`ada`, `#1000`), groups (`%wheel`) and Defaults that sudo does not ask for a password."""
    gaps = GapRecorder()
    path = next((path for path in _PATHS if system.path(path).exists()), _PATHS[0])
    lines: list[tuple[str, str]] = []
    with gaps.capture(path):
        lines = list(_joined(system, path, gaps, [_MAX_BYTES]))
    names = _from_program([text for _, text in lines])
    return gaps.complete(sorted(_from_lines(lines, gaps) if names is None else names))


def _joined(system: System, path: str, gaps: GapRecorder, left: list[int], depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yields `file:line` and text of every logical line of a file and its includes."""
    if depth > _MAX_DEPTH or left[0] <= 0:
        gaps.add("too many files or bytes are included", path)
        return
    if not system.path(path).exists():
        if depth:
            gaps.add("the included file is missing", path)
        return
    text, is_whole = read_beginning(system.path(path))
    left[0] -= len(text) + 1
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
            yield from _included(system, target, gaps, left, depth, is_folder=include[1] == "includedir")


def _included(
    system: System, target: str, gaps: GapRecorder, left: list[int], depth: int, *, is_folder: bool
) -> Iterator[tuple[str, str]]:
    if not is_folder:
        yield from _joined(system, target, gaps, left, depth + 1)
        return
    for file in list_files(system.path(target)):
        # sudo ignores names with a dot or a trailing tilde.
        if "." not in file.name and not file.name.endswith("~"):
            yield from _joined(system, f"{target.rstrip('/')}/{file.name}", gaps, left, depth + 1)


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
    """Removes a comment: `#` outside of quotes that neither is escaped, nor begins a number, nor includes a file."""
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
        elif sign == "#" and not in_quotes and not _is_number_sign(bare, at):
            return bare[:at].strip()
        at += 1
    return bare


def _is_number_sign(line: str, at: int) -> bool:
    """Whether `#` at this place begins a user or group id: at the start of a member, followed by digits."""
    before = line[:at].rstrip(" \t!%+:")
    return re.match(r"#-?\d+(?=[\s,:)=]|$)", line[at:]) is not None and (not before or before[-1] in ",=(:")


def _from_program(lines: list[str]) -> set[str] | None:
    """Returns the names as `cvtsudoers` parses the text; None without it, or when it does not understand the text."""
    if shutil.which(_ARGV[0]) is None:
        return None
    try:
        result = run(_ARGV, seconds=_SECONDS, stdin=("\n".join(lines) + "\n").encode())
        policy = json.loads(result.stdout)
    except (ExecuteError, ValueError, RecursionError):
        return None
    if result.stderr.strip() or not isinstance(policy, dict):
        return None
    try:
        return {*_default_names(policy.get("Defaults", [])), *_rule_names(policy.get("User_Specs", []))}
    except (KeyError, TypeError, AttributeError):
        return None


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
    "netgroup": "+",
}  # fmt: skip


def _member(member: Mapping[str, Any]) -> str:
    kind = next(key for key in member if key != "negated")
    return f"{'!' if member.get('negated') else ''}{_PREFIXES.get(kind, '')}{member[kind]}"


def _from_lines(lines: list[tuple[str, str]], gaps: GapRecorder) -> set[str]:
    aliases = {name: members for _, line in lines for name, members in _user_aliases(line)}
    free: dict[str, bool] = {}
    names: set[str] = set()
    for source, line in lines:
        if line.startswith("Defaults"):
            _read_defaults(source, line, free, names, gaps)
        elif not _ALIAS.match(line):
            users = _USERS.match(line)
            if users is None or "=" not in line[users.end() :]:
                gaps.add("not understood", source)
            elif _NO_PASSWORD.search(line, users.end()):
                names.update(_expanded(_members(users[1]), aliases))
            elif not _is_well_formed(line[users.end() :]):
                gaps.add("not understood", source)
    return names | {name for name, is_free in free.items() if is_free}


def _is_well_formed(rule: str) -> bool:
    """Whether what follows the users of a rule has only printable characters, and pairs of brackets."""
    bare = _ESCAPE.sub("", rule)
    return bare.replace("\t", " ").isprintable() and bare.count("(") == bare.count(")")


def _read_defaults(source: str, line: str, free: dict[str, bool], names: set[str], gaps: GapRecorder) -> None:
    match = _DEFAULTS.match(line)
    if match is None:
        gaps.add("not understood", source)
        return
    binding = ",".join(_members(match[2])) if match[2] else ""
    subject = f"Defaults:{binding}" if binding else "Defaults"
    for option in re.findall(r'(?:"[^"]*"|[^,"])+', match[3]):
        name, _, value = option.partition("=")
        name = name.strip().rstrip("+-").strip()
        bare = name.replace(" ", "").replace("\t", "")
        if bare.lstrip("!") == "authenticate":
            free[subject] = (len(bare) - len(bare.lstrip("!"))) % 2 == 1
        elif bare == "exempt_group" and value.strip().strip('"'):
            names.add("%" + value.strip().strip('"'))


def _user_aliases(line: str) -> Iterator[tuple[str, list[str]]]:
    match = _ALIAS.match(line)
    if match is None or match[1] != "User":
        return
    for definition in re.split(r"(?<!\\)[ \t]*:[ \t]*(?=[A-Z][A-Z0-9_]*[ \t]*=)", match[2]):
        name, _, members = definition.partition("=")
        yield name.strip(), _members(members)


def _members(text: str) -> list[str]:
    members = []
    for member in re.findall(_MEMBER, text):
        bare = member.strip().replace('"', "") if '"' in member else re.sub(r"[ \t]", "", member)
        members.append(_ESCAPE.sub(r"\1", bare))
    return members


def _expanded(members: Iterable[str], aliases: Mapping[str, list[str]]) -> set[str]:
    names: set[str] = set()
    pending, seen = list(members), set[str]()
    while pending:
        member = pending.pop()
        if member in seen:
            continue
        seen.add(member)
        if member in aliases:
            pending += aliases[member]
        else:
            names.add(member)
    return names
