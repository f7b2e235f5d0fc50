"""Reads one rule in the text of `nft list ruleset`; `firewall_nft_text` has the grammar. [nft(8)]"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from device_agent.collectors.system.firewall_nft_words import (
    INTEGER,
    PLAIN_VERDICTS,
    NftTokens,
    read_elements,
    unquoted,
    value_of,
)

_HEADERS: Final = frozenset(
    {
        "ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6", "ether", "vlan", "arp", "sctp", "dccp", "udplite", "esp",
        "ah", "comp", "igmp", "gre",
    }
)  # fmt: skip
_EXTENSIONS: Final = frozenset({"rt", "rt0", "rt2", "rt4", "hbh", "frag", "dst", "mh", "srh"})
_META_KEYS: Final = frozenset({"iif", "oif", "iifname", "oifname", "mark", "skuid", "skgid", "pkttype", "iiftype",
    "oiftype",
                               "iifgroup", "oifgroup", "cgroup", "cpu", "rtclassid"})  # fmt: skip
_OPERATORS: Final = frozenset({"==", "!=", "<", ">", "<=", ">=", "!"})
# Statements that end a rule, or whose words are not read.
_ENDING: Final = frozenset(
    {"dnat", "snat", "redirect", "masquerade", "queue", "dup", "fwd", "tproxy", "synproxy", "flow"}
)
# The options of other statements, and how many words follow each.
_OPTIONS: Final[Mapping[str, Mapping[str, int]]] = {
    "counter": {"packets": 1, "bytes": 1, "name": 1},
    "log": {"prefix": 1, "group": 1, "snaplen": 1, "queue-threshold": 1, "level": 1, "flags": 1, "sequence": 0,
            "options": 0},
    "limit": {"rate": 0, "over": 0, "burst": 2, "name": 1},
    "quota": {"over": 0, "until": 0, "used": 2, "name": 1},
    "last": {"used": 1},
}  # fmt: skip
_WORDY: Final = _ENDING | {*_OPTIONS, "comment", "meter", "xt", "reject"}


class RuleText:
    """Reads one rule, up to the end of its line."""

    def __init__(self, tokens: NftTokens) -> None:
        self._tokens = tokens
        self._pending: dict[str, Any] = {}  # what the last statement leaves open

    def statements(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while self._tokens.peek() not in {"\n", ";", "}", ""}:
            found += [self._statement(), self._pending]
            self._pending = {}
        return [item for item in found if item]

    def _statement(self) -> dict[str, Any]:
        tokens = self._tokens
        word = tokens.peek()
        if word.startswith("#"):
            tokens.take()
            return {} if word.startswith("# handle ") else {"unknown": word}
        if word in PLAIN_VERDICTS:
            return {tokens.take(): None}
        if word in {"jump", "goto"}:
            tokens.take()
            return {word: {"target": unquoted(tokens.take())}}
        if word in {"add", "update", "delete"}:
            return self._set_statement()
        if word in _WORDY:
            return self._wordy()
        key = self._key()
        return {"unknown": " ".join(self._rest())} if key is None else self._match(key)

    def _set_statement(self) -> dict[str, Any]:
        tokens = self._tokens
        operation, name = tokens.take(), tokens.take()
        if not tokens.take_if("{"):
            return {"unknown": " ".join(self._rest())}
        words, depth = [], 1
        while depth and tokens.peek():
            words.append(tokens.take())
            depth += (words[-1] == "{") - (words[-1] == "}")
        statements = [{"limit": None}] if {"limit", "quota", "count"} & set(words) else []
        return {"set": {"op": operation, "set": name, "stmt": statements}}

    def _wordy(self) -> dict[str, Any]:
        """Reads a statement with options. After those that end a rule, the rest of its line does not matter."""
        tokens = self._tokens
        word = tokens.take()
        if word == "reject":
            text = " ".join(self._rest())
            kind = next((kind for kind in ("tcp reset", "icmpx", "icmpv6", "icmp") if f"with {kind}" in text), None)
            return {"reject": {"type": kind} if kind else None}
        if word in _ENDING:
            self._rest()
            return {word: None}
        if word == "xt":
            return {"xt": {"type": tokens.take(), "name": unquoted(tokens.take())}}
        if word == "meter":
            return self._meter()
        if word == "comment":
            tokens.take()
        self._options(word)
        return {word: None}

    def _meter(self) -> dict[str, Any]:
        tokens = self._tokens
        while tokens.peek() not in {"{", "\n", "}", ""}:
            tokens.take()
        if not tokens.take_if("{"):
            return {"unknown": "meter"}
        tokens.skip_block()
        return {"meter": {"stmt": {"limit": None}}}

    def _options(self, word: str) -> None:
        tokens = self._tokens
        while option := tokens.take_if(*_OPTIONS.get(word, {})):
            for _ in range(_OPTIONS[word][option]):
                tokens.take()
            while option == "flags" and tokens.take_if(","):
                tokens.take()
            if option in {"over", "until", "rate"} and word != "last":
                self._amount()
        if word == "quota" and INTEGER.fullmatch(tokens.peek()):
            self._amount()

    def _amount(self) -> None:
        """Reads a number with its unit, such as `3/minute`, `10 mbytes/second` or `25 mbytes`."""
        tokens = self._tokens
        if tokens.peek()[:1].isdecimal():
            tokens.take()
        if "bytes" in tokens.peek():
            tokens.take()

    def _rest(self) -> list[str]:
        """Returns the words up to the end of the line."""
        tokens, words = self._tokens, []
        while tokens.peek() not in {"\n", ";", "}", ""}:
            words.append(tokens.take())
            if words[-1] == "{":
                tokens.skip_block()
        return words

    def _key(self) -> dict[str, Any] | None:
        """Reads what is compared; None if it is not known."""
        parts = []
        while True:
            part = self._one_key()
            if part is None:
                return None
            parts.append(part)
            if not self._tokens.take_if("."):
                return parts[0] if len(parts) == 1 else {"concat": parts}

    def _one_key(self) -> dict[str, Any] | None:
        tokens = self._tokens
        word = tokens.peek()
        if word in _META_KEYS:
            return {"meta": {"key": tokens.take()}}
        if word == "meta":
            tokens.take()
            return {"meta": {"key": tokens.take()}}
        if word.startswith("@") and word[1:] in {"ll", "nh", "th", "ih"}:
            numbers = [tokens.take() for _ in range(5)][2::2]
            if not all(number.isdecimal() and len(number) < 6 for number in numbers):
                return None
            return {"payload": {"base": word[1:], "offset": int(numbers[0]), "len": int(numbers[1])}}
        reader = _KEY_READERS.get(word)
        if reader is not None:
            tokens.take()
            return reader(tokens)
        if word in _EXTENSIONS:
            tokens.take()
            return {"exthdr": {"name": word, "field": tokens.take()}}
        if word in _HEADERS:
            tokens.take()
            name = tokens.take()
            if name == "option":
                return {f"{word} option": {"name": tokens.take(), "field": tokens.take()}}
            return {"payload": {"protocol": word, "field": name}}
        return None

    def _match(self, key: dict[str, Any]) -> dict[str, Any]:
        tokens = self._tokens
        if "ct count" in key:
            return key
        if tokens.take_if("vmap"):
            data: Any = {"set": read_elements(tokens)} if tokens.take_if("{") else tokens.take()
            return {"vmap": {"key": key, "data": data}}
        if tokens.take_if("set"):
            return self._mangle(key)
        if tokens.take_if("&"):
            key = {"&": [key, self._right()]}
        operator = tokens.take_if(*_OPERATORS)
        right = self._right()
        if tokens.take_if("/"):
            key = {"&": [key, self._right()]}
            operator = operator or "=="
        if right is None:
            return {"unknown": "a match without a value"}
        is_bits = isinstance(right, list) or next(iter(key)) == "ct" or key.get("payload", {}).get("field") == "flags"
        return {
            "match": {
                "left": key,
                "op": operator or ("in" if is_bits and not isinstance(right, dict) else "=="),
                "right": right,
            }
        }

    def _mangle(self, key: dict[str, Any]) -> dict[str, Any]:
        tokens = self._tokens
        value = tokens.take()
        if value in {"ct", "meta", "rt"}:
            value = f"{value} {tokens.take()}"
        elif value.startswith(("numgen", "jhash", "symhash", "{")) or tokens.peek() in {"map", "&", "|", "^", "."}:
            value = " ".join(self._rest())
        if tokens.peek() in {"&", "|", "^", "and", "or", "xor", "map", "."}:
            self._rest()
            self._pending = {"unknown": "a computed value"}
        return {"mangle": {"key": key, "value": value}}

    def _right(self) -> Any:
        tokens = self._tokens
        if tokens.take_if("{"):
            return {"set": read_elements(tokens)}
        is_group = bool(tokens.take_if("("))
        if tokens.peek() in {"\n", ";", "}", ""}:
            return None
        values = [self._word()]
        while tokens.take_if(",", "|"):
            values.append(self._word())
        if is_group:
            tokens.take_if(")")
        while tokens.take_if("."):  # a single element of a concatenation
            values.append(self._word())
            values = [{"concat": values}] if len(values) == 2 and "concat" not in str(values[0]) else [_joined(values)]
        return values[0] if len(values) == 1 else values

    def _word(self) -> Any:
        word = self._tokens.take()
        if self._tokens.take_if("-"):  # of two strings
            return {"range": [value_of(word), value_of(self._tokens.take())]}
        return {"missing": False, "exists": True}.get(word, value_of(word))


def _joined(values: list[Any]) -> dict[str, Any]:
    return {"concat": [*values[0]["concat"], *values[1:]]}


def _ct_key(tokens: NftTokens) -> dict[str, Any] | None:
    direction = tokens.take_if("original", "reply")
    key = tokens.take()
    if key == "count":
        tokens.take_if("over")
        return {"ct count": {"val": tokens.take()}}
    if key in {"ip", "ip6"}:
        key = f"{key} {tokens.take()}"
    return {"ct": {"key": key, **({"dir": direction} if direction else {})}}


def _fib_key(tokens: NftTokens) -> dict[str, Any] | None:
    flags = [tokens.take()]
    while tokens.take_if("."):
        flags.append(tokens.take())
    return {"fib": {"result": tokens.take(), "flags": flags}}


_KEY_READERS: Final[Mapping[str, Callable[[NftTokens], dict[str, Any] | None]]] = {"ct": _ct_key, "fib": _fib_key}
