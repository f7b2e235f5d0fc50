"""The grammar of sudoers(5), for where `cvtsudoers` gives no answer: who is not asked for a password."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from device_agent.host.reading import GapRecorder

_DEFAULTS: Final = re.compile(r"Defaults(?![A-Za-z0-9_])")
_BINDING: Final = re.compile(r"[@:!>]")
_ALIAS: Final = re.compile(r"(User|Runas|Host|Cmnd|Cmd)_Alias[ \t]")
_ALIAS_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*")
# Of a list: a quoted name, or a word in which white space and signs are escaped.
_MEMBER: Final = re.compile(r'"(?:\\.|[^"\\])+"|(?:%:)?(?:\\.|[^\s,=:"\\!()])(?:\\.|[^\s,=:"\\()])*')
_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9A-Fa-f:.]+)?(?=[\s,=])")  # an IPv6 address has colons
_OPTION_OF_DEFAULTS: Final = re.compile(
    r'(!*)[ \t]*([a-z_0-9]+)(?:[ \t]*[+-]?=[ \t]*("[^"]*"|(?:\\.|[^\s,=!"\\])(?:\\.|[^\s,="\\])*))?'
)
_OPTION: Final = re.compile(
    r"(?:CWD|CHROOT|TIMEOUT|NOTBEFORE|NOTAFTER|ROLE|TYPE|PRIVS|LIMITPRIVS|APPARMOR_PROFILE)[ \t]*=[ \t]*"
    r'(?:"[^"]*"|(?:\\.|[^\s,"\\])+)'
)
_TAG: Final = re.compile(
    r"(NOPASSWD|PASSWD|(?:NO)?EXEC|(?:NO)?SETENV|(?:NO)?LOG_INPUT|(?:NO)?LOG_OUTPUT|(?:NO)?FOLLOW|(?:NO)?MAIL|"
    r"(?:NO)?INTERCEPT)[ \t]*:"
)
_DIGEST: Final = re.compile(r"sha(?:224|256|384|512)[ \t]*:[ \t]*[A-Za-z0-9+/=]+")
_PATH: Final = re.compile(r"(?:/(?:\\.|[^\s,:\\#])*|(?:sudoedit|list)(?![^\s,:]))((?:[ \t]+(?:\\.|[^\s,:#\\])+)*)")
_ESCAPE: Final = re.compile(r"\\(.)")
_BLANK: Final = re.compile(r"[ \t]+")
_ANYTHING: Final = re.compile(r"\S")


class _NotUnderstoodError(ValueError):
    """The line does not follow the grammar."""


class _Line:
    """One line and the place up to which it was read; every step reads on and none goes back."""

    def __init__(self, text: str) -> None:
        if not text.replace("\t", " ").isprintable():
            raise _NotUnderstoodError
        self._text, self._at = text.rstrip(), 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match

    def need(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = self.take(pattern)
        if match is None:
            raise _NotUnderstoodError
        return match

    def sign(self, sign: str) -> bool:
        """Skips a sign with the white space around it; returns whether it was there."""
        start = self._at
        self.take(_BLANK)
        if not self._text.startswith(sign, self._at):
            self._at = start
            return False
        self._at += len(sign)
        self.take(_BLANK)
        return True

    def need_sign(self, sign: str) -> None:
        if not self.sign(sign):
            raise _NotUnderstoodError

    def need_end(self) -> None:
        if self._at < len(self._text):
            raise _NotUnderstoodError

    def members(self, *, of_hosts: bool = False) -> list[str]:
        names: list[str] = []
        while not names or self.sign(","):
            negation = ""
            while self.sign("!"):
                negation += "!"
            match = (self.take(_NETWORK) if of_hosts else None) or self.need(_MEMBER)
            names.append(negation + _ESCAPE.sub(r"\1", match[0].replace('"', "")))
        return names


def read_lines(lines: Sequence[tuple[str, str]], gaps: GapRecorder) -> set[str]:
    """Returns who is not asked for a password, from the logical lines with their `file:line`; others are gaps."""
    aliases: dict[str, list[str]] = {}
    users: list[str] = []
    free: dict[str, bool] = {}
    names: set[str] = set()
    for source, text in lines:
        try:
            line = _Line(text)
            if line.take(_DEFAULTS):
                _read_defaults(line, free, names)
            elif kind := line.take(_ALIAS):
                _read_aliases(line, aliases if kind[1] == "User" else None)
            else:
                users += _users_without_password(line)
        except _NotUnderstoodError:
            gaps.add("not understood", source)
    return names | set(expanded(users, aliases)) | {name for name, is_free in free.items() if is_free}


def expanded(members: Iterable[str], aliases: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields the members of the aliases; a name that is no alias is a user's, as in sudo."""
    pending, seen = list(members), set[str]()
    while pending:
        member = pending.pop()
        if member not in seen:
            seen.add(member)
            if member in aliases:
                pending += aliases[member]
            else:
                yield member


def _read_defaults(line: _Line, free: dict[str, bool], names: set[str]) -> None:
    subject = "Defaults"
    if line.take(_BINDING):
        line.take(_BLANK)
        subject = f"Defaults:{','.join(line.members())}"
    line.need(_BLANK)
    is_first = True
    while is_first or line.sign(","):
        is_first = False
        option = line.need(_OPTION_OF_DEFAULTS)
        if option[1] and option[3] is not None:
            raise _NotUnderstoodError
        value = (option[3] or "").strip('"')
        if option[2] == "authenticate":
            free[subject] = len(option[1]) % 2 == 1
        elif option[2] == "exempt_group" and value:
            names.add(f"%{value}")
    line.need_end()


def _read_aliases(line: _Line, aliases: dict[str, list[str]] | None) -> None:
    """Reads definitions of user aliases; the members of others grant nothing by themselves, and are not read."""
    line.take(_BLANK)
    if aliases is None:
        line.need(_ALIAS_NAME)
        line.need_sign("=")
        line.need(_ANYTHING)
        return
    is_first = True
    while is_first or line.sign(":"):
        is_first = False
        name = line.need(_ALIAS_NAME)[0]
        line.need_sign("=")
        aliases[name] = line.members()
    line.need_end()


def _users_without_password(line: _Line) -> list[str]:
    """Returns the users of a rule if one of its commands has the tag NOPASSWD."""
    users = line.members()
    line.need(_BLANK)
    is_free = _has_free_command(line)
    while line.sign(":"):
        is_free = _has_free_command(line) or is_free
    line.need_end()
    return users if is_free else []


def _has_free_command(line: _Line) -> bool:
    line.members(of_hosts=True)
    line.need_sign("=")
    tags = set()
    is_first = True
    while is_first or line.sign(","):
        is_first = False
        _skip_runas(line)
        while line.take(_OPTION):
            line.take(_BLANK)
        while tag := line.take(_TAG):
            tags.add(tag[1])
            line.take(_BLANK)
        _skip_command(line)
    return "NOPASSWD" in tags


def _skip_runas(line: _Line) -> None:
    """Skips `(users)`, `(users : groups)`, `(: groups)` or `()`."""
    if not line.sign("(") or line.sign(")"):
        return
    if not line.sign(":"):
        line.members()
        if line.sign(")"):
            return
        line.need_sign(":")
    line.members()
    line.need_sign(")")


def _skip_command(line: _Line) -> None:
    while line.take(_DIGEST):
        line.sign(",")
        line.take(_BLANK)
    while line.sign("!"):
        pass
    if not line.take(_PATH):
        line.need(_ALIAS_NAME)
