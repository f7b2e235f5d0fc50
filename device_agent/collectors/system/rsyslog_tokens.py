"""The tokens of rsyslog's configuration: RainerScript, and the forms of the syslogd before it."""

import re
from collections.abc import Sequence
from typing import Final

_FACILITIES: Final = {
    name: number
    for number, names in enumerate(
        (
            "kern", "user", "mail", "daemon", "auth|security", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
            "ftp", "ntp", "audit", "alert", "clock", *(f"local{number}" for number in range(8)),
        )
    )
    for name in names.split("|")
}  # fmt: skip
_PRIORITIES: Final = {
    name: number
    for number, names in enumerate(
        ("emerg|panic", "alert", "crit", "err|error", "warning|warn", "notice", "info", "debug")
    )
    for name in names.split("|")
}
_LINE_START: Final = re.compile(
    r"^[ \t]*(?:(?P<property>:\$?[a-z-]+[ ]*,[ ]*!?[a-z]+[ ]*,[ ]*\"(?:\\\"|[^\"]){0,4096}\")"
    r"|(?P<priority>[*a-z]+[0-7]*[.,][,!=;.*a-z0-7]+)|(?P<host>[+-](?:\*|[a-z0-9.:-]+)[ \t]*$))",
    re.IGNORECASE | re.MULTILINE,
)
_TOKEN: Final = re.compile(
    r"(?P<blank>[ \t\r\n]+|\#[^\n]*|/\*(?:[^*]|\*(?!/)){0,8192}\*/)"
    r"|(?P<object>(?:main_queue|timezone|parser|global|template|ruleset|property|constant|input|module|lookup_table"
    r"|dyn_stats|include|action)[ \n\t]*\()"
    r"|(?P<setting>\$[a-z][^\n]*)|(?P<tag>![^ \t\n]+[ \t]*$)|(?P<mark>[&{}])"
    r"|(?P<output>-?/[^*\n][^\n]*|:[a-z0-9]+:[^\n]*|[|.\-@^?~>][^\n]+|[~*])|(?P<word>[a-z0-9_][a-z0-9_+,;-]*)",
    re.IGNORECASE | re.MULTILINE,
)
PAIR: Final = re.compile(
    r"(?:[ \t\r\n,]+|\#[^\n]*|/\*(?:[^*]|\*(?!/)){0,8192}\*/)|(?P<end>\))"
    r"|(?P<key>[a-z][a-z0-9_.]*)\s*=\s*(?P<value>\"(?:[^\"\\]|\\.)*\"|`[^`]*`|\[[^\]]*\])",
    re.IGNORECASE,
)
EXPRESSION: Final = re.compile(
    r"\s+|/\*(?:[^*]|\*(?!/)){0,8192}\*/|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`)|(?P<number>0x[0-9a-f]+|\d+)"
    r"|(?P<variable>\$[$!./]?[@a-z_]*[!@a-z0-9\-_.\[\]]*)|(?P<name>[a-z][a-z0-9_]*)|(?P<mark>[=<>!]=|<>|[(),;=*/%+&<>\[\]-])",
    re.IGNORECASE,
)


def mask_of(text: str) -> int | None:
    """Returns what a selector such as `*.info;mail.none` takes; None if it is not understood.

    Eight bits for each facility, of which the lowest is the highest priority.
    """
    mask = 0
    for part in text.lower().split(";"):
        names, _, priority = part.strip().rpartition(".")
        facilities = set[int]()
        for name in names.split(","):
            if name == "*":
                facilities.update(range(24))
            elif name in _FACILITIES:
                facilities.add(_FACILITIES[name])
            elif name != "mark":  # messages of rsyslog itself
                return None
        is_off, is_exact = priority.startswith("!"), priority.lstrip("!").startswith("=")
        bare = priority.lstrip("!=")
        if bare not in {"*", "none", *_PRIORITIES}:
            return None
        number = _PRIORITIES.get(bare, 7)
        bits = 1 << number if is_exact and bare in _PRIORITIES else (2 << number) - 1
        for facility in facilities:
            mask = mask & ~(bits << facility * 8) if is_off or bare == "none" else mask | bits << facility * 8
    return mask


class Cursor:
    """A place in the text of a file."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text, self.at = path, text, 0

    def next(self) -> tuple[str, str]:
        """Returns kind and text of the next token; an empty kind at the end, `?` for what is none."""
        while self.at < len(self.text):
            is_start = self.at == 0 or self.text[self.at - 1] == "\n"
            found = (_LINE_START.match(self.text, self.at) if is_start else None) or _TOKEN.match(self.text, self.at)
            if found is None:
                self.skip_line()
                return "?", ""
            self.at = found.end()
            kind = found.lastgroup or ""
            if kind != "blank":
                return kind, found[kind].strip()
        return "", ""

    def peek(self) -> tuple[str, str]:
        """Returns the next token, and stays where it is."""
        before = self.at
        token = self.next()
        self.at = before
        return token

    def skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1


def has_constant_clause(tokens: Sequence[str]) -> bool:
    """Whether a part of a condition has neither a property nor a function, so that it is always the same."""
    clauses: list[list[str]] = [[]]
    for token in tokens:
        if token.lower() in {"and", "or", "not"}:
            clauses.append([])
        elif token not in {"(", ")"}:
            clauses[-1].append(token)
    words = {"contains", "contains_i", "startswith", "startswith_i"}
    return any(
        clause and not any(token[0] == "$" or (token[0].isalpha() and token.lower() not in words) for token in clause)
        for clause in clauses
    )
