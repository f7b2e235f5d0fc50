"""Reads the HOCON text in which EMQX prints its configuration.

This is the form that EMQX writes: objects, lists, strings, plain values. Includes and substitutions of the full
language are not followed; they stay text.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

MAX_DEPTH: Final = 32  # nested objects and lists
_TOKEN: Final = re.compile(
    r'"""(?P<block>.*?)"""|"(?P<string>(?:[^"\\\n]|\\.)*)"'
    r"|(?P<mark>[{}\[\]=:,\n])|(?P<comment>#[^\n]*)|(?P<plain>[^{}\[\]=:,\n\"#]+)|(?P<other>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}
_NUMBER: Final = re.compile(r"-?\d{1,18}")
_WORDS: Final = {"true": True, "false": False, "null": None}
_Token = tuple[str, str]


class HoconError(ValueError):
    """The text is not of the form that EMQX prints."""


def read_hocon(text: str) -> dict[str, Any]:
    """Returns the configuration; whole numbers and booleans as such, other plain values as text.

    Raises:
        HoconError: another form, or nested too deeply.
    """
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._ahead: _Token | None = None

    def document(self) -> dict[str, Any]:
        return self._fields("", 0)

    def _next(self) -> _Token:
        token, self._ahead = self._ahead or next(self._tokens, ("end", "")), None
        return token

    def _skip(self, marks: str) -> _Token:
        """The first token that is none of these marks."""
        token = self._next()
        while token[0] == "mark" and token[1] in marks:
            token = self._next()
        return token

    def _fields(self, end: str, depth: int) -> dict[str, Any]:
        """Reads fields up to the mark `end`; an empty `end` is the end of the text."""
        if depth > MAX_DEPTH:
            raise HoconError("nested too deeply")
        fields: dict[str, Any] = {}
        while True:
            kind, name = self._skip("\n,")
            if (kind, name) in (("mark", end), ("end", end)):
                return fields
            if kind not in ("plain", "string"):
                raise HoconError(f"expected a name, found {name[:40]!r}")
            mark = self._next()
            if mark in (("mark", "="), ("mark", ":")):
                mark = self._skip("\n")
            elif mark != ("mark", "{"):
                raise HoconError(f"expected a value for {name[:40]!r}")
            fields[name] = self._value(mark, depth)

    def _value(self, token: _Token, depth: int) -> Any:
        kind, text = token
        if token == ("mark", "{"):
            return self._fields("}", depth + 1)
        if token == ("mark", "["):
            return self._items(depth + 1)
        if kind in ("string", "block"):
            return text
        if kind != "plain":
            raise HoconError(f"expected a value, found {text[:40]!r}")
        # An unquoted value such as `10:30` or `a=b` goes on to the end of its line.
        while (following := self._next()) in (("mark", ":"), ("mark", "=")) or following[0] == "plain":
            text += following[1]
        self._ahead = following
        return _plain(text)

    def _items(self, depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise HoconError("nested too deeply")
        items: list[Any] = []
        while (token := self._skip("\n,")) != ("mark", "]"):
            if token[0] == "end":
                raise HoconError("a list without an end")
            items.append(self._value(token, depth))
        return items


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text.replace("\r\n", "\n")):
        kind, found = str(match.lastgroup), match.group(match.lastgroup or 0)
        if kind == "other":
            raise HoconError(f"unexpected {found!r}")
        if kind == "string":
            found = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape.group(1), escape.group(1)), found)
        if kind == "comment" or (kind == "plain" and not found.strip()):
            continue
        yield kind, found.strip() if kind == "plain" else found


def _plain(text: str) -> Any:
    if _NUMBER.fullmatch(text):
        return int(text)
    return _WORDS.get(text, text)
