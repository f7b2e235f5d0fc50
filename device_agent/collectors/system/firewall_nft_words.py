"""The words of the text of `nft list ruleset`, and the values and elements of sets in it. [nft(8)]"""

import ipaddress
import re
from typing import Any, Final

# A quotation that does not end is a token too: trying each quote as a beginning would take quadratic time.
_TOKEN: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}(),;\n|]|#[^\n]*|[^\s{}(),;"|#]+')
INTEGER: Final = re.compile(r"(?:0x[0-9a-f]{1,8}|\d{1,10})", re.IGNORECASE)
PLAIN_VERDICTS: Final = frozenset({"accept", "drop", "return", "continue", "notrack"})
_MAX_TOKENS: Final = 1_000_000


class NftTokens:
    """The words of the text; strings keep their quotes."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)[:_MAX_TOKENS]
        self._at = 0

    def peek(self) -> str:
        """Returns the next token, empty at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        """Returns the next token and goes past it."""
        word = self.peek()
        self._at += 1
        return word

    def take_if(self, *wanted: str) -> str:
        """Returns the next token and goes past it if it is wanted; empty otherwise."""
        return self.take() if self.peek() in wanted and self.peek() else ""

    def skip_blank(self) -> None:
        """Goes past line ends and semicolons."""
        while self.peek() in {"\n", ";"}:
            self._at += 1

    def skip_block(self) -> None:
        """Goes past what is between an opened brace and the closing one."""
        depth = 1
        while depth and self.peek():
            word = self.take()
            depth += (word == "{") - (word == "}")

    def rest_of_line(self) -> list[str]:
        """Returns the words up to the end of a line, without it."""
        words = []
        while self.peek() not in {"\n", ";", "}", ""}:
            words.append(self.take())
        return words


def read_elements(tokens: NftTokens) -> list[Any]:
    """Reads the elements of a set up to its closing brace; those of a map as pairs of value and verdict."""
    elements: list[Any] = []
    words: list[str] = []
    verdict: list[str] | None = None
    while True:
        word = tokens.take()
        if word in {",", "}", ""}:
            if words:
                key = _element(words)
                elements.append(key if verdict is None else [key, _verdict_of(verdict)])
            words, verdict = [], None
            if word != ",":
                return elements
        elif word == "{":
            tokens.skip_block()
            words.append("unknown")
        elif word == ":" and verdict is None:
            verdict = []
        elif word != "\n":
            (words if verdict is None else verdict).append(word)


def _element(words: list[str]) -> Any:
    """Returns the value of an element: options such as its timeout follow the value."""
    parts = [value_of(words[0])]
    rest = words[1:]
    while len(rest) > 1 and rest[0] == ".":
        parts.append(value_of(rest[1]))
        rest = rest[2:]
    if rest and rest[0] not in {"timeout", "expires", "counter", "comment", "limit", "quota", "ct", "last"}:
        return {"unknown": " ".join(words)}
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _verdict_of(words: list[str]) -> dict[str, Any]:
    if len(words) == 2 and words[0] in {"jump", "goto"}:
        return {words[0]: {"target": unquoted(words[1])}}
    return {words[0]: None} if len(words) == 1 and words[0] in PLAIN_VERDICTS else {"unknown": " ".join(words)}


def unquoted(word: str) -> str:
    """Returns a word without the quotes around it."""
    return word[1:-1] if len(word) > 1 and word.startswith('"') else word


def value_of(word: str) -> Any:
    """Returns a value of the JSON form: a number, prefix, range, or the word itself."""
    if word.startswith('"'):
        return unquoted(word)
    if INTEGER.fullmatch(word):
        return int(word, 0) if word.lower().startswith("0x") else int(word)
    address, slash, length = word.partition("/")
    if slash and length.isdecimal() and _is_address(address):
        return {"prefix": {"addr": address, "len": int(length[:4])}}
    low, dash, high = word.partition("-")
    if dash and all(_is_address(end) or INTEGER.fullmatch(end) for end in (low, high)):
        return {"range": [value_of(low), value_of(high)]}
    return word


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
