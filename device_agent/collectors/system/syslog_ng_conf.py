"""The configuration of syslog-ng: the destinations that log paths with a source of this device lead to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from device_agent.collectors.system.log_targets import LogOutputs, LogTarget, is_host
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

CONFIG: Final = "/etc/syslog-ng/syslog-ng.conf"
_OWN_INCLUDES: Final = ("scl.conf", "/usr/share/syslog-ng/")  # syslog-ng's own library, which has no log path
_MAX_DEPTH: Final = 16
_MAX_TOKENS: Final = 200_000
_TOKEN: Final = re.compile(
    r"(?P<blank>\s+|\#[^\n]*)|(?P<text>\"(?:[^\"\\]|\\.){0,4096}\"|'[^']{0,4096}')|(?P<mark>[(){};,])"
    r"|(?P<pragma>@[a-z-]+[^\n]*)|(?P<word>[^\s(){};,\"'#@]+)",
    re.IGNORECASE,
)
_REMOTE: Final = {"tcp": "tcp", "tcp6": "tcp", "udp": "udp", "udp6": "udp", "network": "tcp", "syslog": "tcp"}
_NETWORK_SOURCES: Final = frozenset({*_REMOTE, "default-network-drivers", "syslog-ng"})
_LOCAL: Final = frozenset({"pipe", "program", "unix-stream", "unix-dgram", "usertty", "pseudofile", "null", "stdout"})


@dataclass(slots=True)
class _Item:
    """A word or text, followed by arguments in parentheses or a block in braces."""

    word: str
    arguments: list["_Item"] = field(default_factory=list)
    statements: list[list["_Item"]] = field(default_factory=list)
    has_block: bool = False


def read(system: System, gaps: GapRecorder) -> LogOutputs:
    """Returns the targets and log files that messages of this device reach; what is not understood is a gap."""
    outputs = LogOutputs()
    if not system.path(CONFIG).exists():
        gaps.add("the file is missing", CONFIG)
        return outputs
    tokens: list[tuple[str, str]] = []
    _tokenise(system, CONFIG, tokens, gaps, IncludeBudget(system, _MAX_DEPTH), 0)
    statements = _Parser(tokens, gaps).statements()
    if gaps.gaps:
        return outputs  # syslog-ng refuses the file, or something of it was not read
    paths = _Paths(statements, gaps, outputs)
    paths.follow()
    return LogOutputs() if paths.is_refused else outputs


def _tokenise(
    system: System, path: str, tokens: list[tuple[str, str]], gaps: GapRecorder, budget: IncludeBudget, depth: int
) -> None:
    """Adds the tokens of a file and its includes."""
    text = ""
    with gaps.capture(path):
        text = budget.text(system.path(path), depth)
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or len(tokens) > _MAX_TOKENS:
            gaps.add("not understood, or too much", path)
            return
        at = found.end()
        if found.lastgroup == "pragma":
            words = found[0].split(None, 1)
            if words[0].lower() == "@include":
                for file in _included(system, words[1] if len(words) > 1 else "", path, gaps, budget):
                    _tokenise(system, file, tokens, gaps, budget, depth + 1)
            elif words[0].lower() not in {"@version:", "@version", "@define", "@requires", "@module"}:
                gaps.add(f"not understood: {words[0]}", path)
        elif found.lastgroup != "blank":
            tokens.append((found.lastgroup or "", found[0]))


def _included(system: System, text: str, path: str, gaps: GapRecorder, budget: IncludeBudget) -> Iterator[str]:
    target = text.partition("#")[0].strip().strip("\"'")
    if not target or target.startswith(_OWN_INCLUDES):
        if not target:
            gaps.add("the include is not understood", path)
        return
    target = target if target.startswith("/") else f"/etc/syslog-ng/{target}"
    folder, _, name = target.rpartition("/")
    with gaps.capture(target):
        if any(mark in folder for mark in "*?[`"):
            raise ValueError("the include is not understood")
        if not any(mark in name for mark in "*?[") and system.path(target).is_dir():
            folder, name = target, "*"
        found = budget.files_in(system.path(folder), name)
        if not found and not any(mark in name for mark in "*?["):
            raise FileNotFoundError(2, "the included file is missing", target)
        for file in found:
            yield f"{folder}/{file.name}"


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], gaps: GapRecorder) -> None:
        self._tokens, self._gaps, self._at = tokens, gaps, 0

    def statements(self, end: str = "", depth: int = 0) -> list[list[_Item]]:
        """Parses statements up to a closing brace."""
        found: list[list[_Item]] = []
        while True:
            items = self._items(depth)
            mark = self._tokens[self._at][1] if self._at < len(self._tokens) else ""
            self._at += 1
            found += [items] if items else []
            if mark != ";":
                if mark != end:
                    self._gaps.add("braces do not match", CONFIG)
                return found

    def _items(self, depth: int) -> list[_Item]:
        """Parses words with their arguments and blocks up to `;` or a closing mark."""
        items: list[_Item] = []
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "mark" and text in ";)}":
                break
            self._at += 1
            if kind != "mark":
                items.append(_Item(text[1:-1] if kind == "text" else text))
            elif depth >= _MAX_DEPTH:
                self._gaps.add("blocks are nested too deeply", CONFIG)
                self._at = len(self._tokens)
            elif text == "{":
                items = items or [_Item("")]
                items[-1].statements += self.statements("}", depth + 1)
                items[-1].has_block = True
            elif text == "(":
                items = items or [_Item("")]
                items[-1].arguments += self._arguments(depth + 1)
        return items

    def _arguments(self, depth: int) -> list[_Item]:
        items: list[_Item] = []
        while True:
            items += self._items(depth)
            mark = self._tokens[self._at][1] if self._at < len(self._tokens) else ""
            self._at += 1
            if mark != ";":
                if mark != ")":
                    self._gaps.add("parentheses do not match", CONFIG)
                return items


class _Paths:
    """Follows the log paths from the sources of this device."""

    def __init__(self, statements: list[list[_Item]], gaps: GapRecorder, outputs: LogOutputs) -> None:
        self._gaps, self._outputs = gaps, outputs
        self._named: dict[tuple[str, str], list[list[_Item]]] = {}
        self._logs: list[_Item] = []
        self.is_refused = False  # syslog-ng does not start with it
        self._taken: set[str] = set()  # sources whose messages end in an earlier path
        for items in statements:
            kind = items[0].word.lower()
            if kind == "log":
                self._logs += items[:1]
            elif kind in {"source", "destination"} and len(items) > 1:
                self._named[kind, items[1].word] = items[1].statements
            elif kind not in {"options", "filter", "parser", "rewrite", "template", "block", "template-function"}:
                self._gaps.add(f"not understood: {kind}", CONFIG)
                self.is_refused = True

    def follow(self) -> None:
        """Adds the outputs of every log path."""
        for log in self._logs:
            self._log(log, frozenset())

    def _log(self, log: _Item, inherited: frozenset[str]) -> None:
        items = [one for items in log.statements for one in items]
        words = {one.word.lower() for one in items}
        flags = {flag.word.lower() for one in items if one.word.lower() == "flags" for flag in one.arguments}
        sources = inherited | {name for one in items if one.word.lower() == "source" for name in self._sources(one)}
        if not sources - self._taken:
            return
        if "fallback" in flags:
            self._gaps.add("what only reaches a path for the rest is not read", CONFIG)
            return
        for one in items:
            kind = one.word.lower()
            if kind == "destination":
                self._destination(one)
            elif kind in {"log", "channel", "junction", "if", "elif", "else"}:
                self._log(one, frozenset(sources - self._taken))
        if "final" in flags and not words & {"filter", "parser", "if", "junction", "log", "channel"} and not inherited:
            self._taken |= sources

    def _sources(self, reference: _Item) -> Iterator[str]:
        """Yields the sources of messages of this device that a reference names or contains."""
        for name, statements in self._resolved("source", reference):
            drivers = {items[0].word.lower() for items in statements}
            if drivers - _NETWORK_SOURCES:
                yield name

    def _resolved(self, kind: str, reference: _Item) -> Iterator[tuple[str, list[list[_Item]]]]:
        if reference.has_block:
            yield f"block {id(reference)}", reference.statements
        for name in reference.arguments:
            if (kind, name.word) in self._named:
                yield name.word, self._named[kind, name.word]
            else:
                self._gaps.add(f"the {kind} {name.word} is missing", CONFIG)
                self.is_refused = True

    def _destination(self, reference: _Item) -> None:
        for _, statements in self._resolved("destination", reference):
            for items in statements:
                self._driver(items[0])

    def _driver(self, driver: _Item) -> None:
        kind = driver.word.lower()
        first = driver.arguments[0].word if driver.arguments else ""
        options = {one.word.lower(): one.arguments[0].word for one in driver.arguments if one.arguments}
        host = options.get("ip", first) if first.lower() == "ip" else first
        if kind == "file":
            self._outputs.files.add(first)
        elif kind in _REMOTE and is_host(host):
            transport = options.get("transport", _REMOTE[kind]).lower()
            port = options.get("port", options.get("destport", options.get("dest-port", "514")))
            self._outputs.targets.add(LogTarget(transport, host, port))
        elif kind not in _LOCAL:
            self._gaps.add(f"the destination {kind} is not read", CONFIG)
