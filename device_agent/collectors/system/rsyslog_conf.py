"""The configuration of rsyslog: which forwarding actions and log files the device's own messages reach."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from device_agent.collectors.system.log_targets import LogOutputs, LogTarget, is_host
from device_agent.collectors.system.rsyslog_tokens import EXPRESSION, PAIR, Cursor, has_constant_clause, mask_of
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

CONFIG: Final = "/etc/rsyslog.conf"
_DEFAULT: Final = "rsyslog_defaultruleset"
_DYNAMIC: Final = "?"  # in the place of a path: a template makes it
_MAX_DEPTH: Final = 16  # of blocks, includes and called rulesets
_MAX_STEPS: Final = 100_000
_EVERYTHING: Final = (1 << 24 * 8) - 1
_LEGACY: Final = re.compile(r"^(@@?)(?:\([^)]*\))?\s*(\[[^\]]+\]|[A-Za-z0-9._%-]+)(?::(\d{1,5}))?\s*(?:[;#].*)?$")
_RELP: Final = re.compile(r"^:omrelp:\s*(\[[^\]]+\]|[A-Za-z0-9._%-]+)(?::(\d{1,5}))?\s*(?:[;#].*)?$", re.IGNORECASE)
_LOCAL_OUTPUTS: Final = frozenset(
    {
        "omfile", "omusrmsg", "omjournal", "ompipe", "omuxsock", "omdiscard", "omprog", "omstdout", "ommail",
        "mmjsonparse", "mmnormalize", "mmanon", "mmutf8fix", "mmfields", "mmpstrucdata", "mmrm1stspace", "mmsequence",
        "mmcount", "mmdblookup", "mmexternal", "mmkubernetes", "mmsnmptrapd", "mmtaghostname", "mmgrok",
        "mmrfc5424addhmac", "impstats",
    }
)  # fmt: skip
_KEYWORDS: Final = frozenset(
    {
        "if", "foreach", "reload_lookup_table", "stop", "else", "call", "call_indirect", "set", "reset", "unset",
        "continue",
    }
)  # fmt: skip
_MAX_FAILURES: Final = 16  # parts that are no tokens, until the rest of a file is left unread
_MAX_NESTED: Final = 32
_NAME: Final = re.compile(r"[ \t\n]*([a-z][a-z0-9_.-]*)", re.IGNORECASE)
_NETWORK_INPUTS: Final = frozenset({"imtcp", "imudp", "imptcp", "imrelp", "imgssapi", "imhttp", "imdtls", "imhiredis"})
_ON: Final = frozenset({"on", "yes", "1", "true"})


@dataclass(slots=True)
class _Statement:
    """An output, a stop, the call of a ruleset, or a filter with its blocks; `mask` are the priorities of a filter."""

    kind: str
    target: LogTarget | None = None
    path: str = ""
    name: str = ""
    mask: int = _EVERYTHING
    block: list["_Statement"] = field(default_factory=list)
    otherwise: list["_Statement"] = field(default_factory=list)


def read(system: System, gaps: GapRecorder) -> LogOutputs:
    """Returns the targets and log files that messages of this device reach; what is not understood is a gap."""
    outputs = LogOutputs()
    if not system.path(CONFIG).exists():
        gaps.add("the file is missing", CONFIG)
        return outputs
    parser = _Parser(system, gaps)
    parser.read_file(CONFIG, None, 0)
    if parser.is_broken:
        return outputs
    walk = _Walk(parser.rulesets, outputs, gaps)
    for name in sorted({parser.default, *parser.inputs}):
        walk.run(parser.rulesets.get(name, []), _EVERYTHING, 0)
    return outputs


class _Walk:
    """Follows the statements with the messages that are left, as facility and priority."""

    def __init__(self, rulesets: dict[str, list[_Statement]], outputs: LogOutputs, gaps: GapRecorder) -> None:
        self._rulesets, self._outputs, self._gaps = rulesets, outputs, gaps
        self._steps = 0

    def run(self, statements: Sequence[_Statement], left: int, depth: int) -> int:
        """Returns the messages that no statement discarded."""
        for one in statements:
            self._steps += 1
            if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
                self._gaps.add("rulesets are nested too deeply", CONFIG)
                return left
            if not left:
                break
            if one.kind == "stop":
                left = 0
            elif one.kind == "output":
                self._outputs.targets |= {one.target} if one.target else set()
                self._outputs.files |= {one.path} if one.path.startswith("/") else set()
                self._outputs.has_dynamic_files |= one.path == _DYNAMIC
            elif one.kind == "call":
                if one.name not in self._rulesets:
                    self._gaps.add(f"the ruleset {one.name} is missing", CONFIG)
                left = self.run(self._rulesets.get(one.name, []), left, depth + 1)
            elif one.kind == "priority":
                rest = self.run(one.otherwise, left & ~one.mask, depth + 1)
                left = self.run(one.block, left & one.mask, depth + 1) | rest
            else:
                left = self.run(one.block, left, depth + 1) | self.run(one.otherwise, left, depth + 1)
        return left


class _Parser:
    """Parses files and their includes into the statements of each ruleset."""

    def __init__(self, system: System, gaps: GapRecorder) -> None:
        self._system, self._gaps = system, gaps
        self.rulesets: dict[str, list[_Statement]] = {_DEFAULT: []}
        self.default = _DEFAULT
        self.inputs: set[str] = set()
        self._current = _DEFAULT
        self._is_tls = False
        self._is_spare = False  # the outputs that follow take over when the one before fails
        self._has_tag = False
        self._budget = IncludeBudget(system, _MAX_DEPTH)
        self._depth = 0
        self.is_broken = False  # after a mistake of the grammar nothing is where it seems to be

    def _fail(self, reason: str, path: str) -> None:
        self._gaps.add(reason, path)
        self.is_broken = True

    def read_file(self, path: str, into: list[_Statement] | None, depth: int) -> None:
        """Reads a file into a block, or into the present ruleset."""
        text = ""
        with self._gaps.capture(path):
            text = self._budget.text(self._system.path(path), depth)
        outer, self._depth = self._depth, depth
        self._sequence(Cursor(path, text.replace("\\\n", "")), into, is_block=False)
        self._depth = outer

    def _sequence(self, cursor: Cursor, into: list[_Statement] | None, *, is_block: bool) -> None:
        failures = 0
        while failures < _MAX_FAILURES:
            kind, text = cursor.next()
            if not kind or (kind == "mark" and text == "}"):
                if bool(kind) != is_block:
                    self._fail("blocks do not match", cursor.path)
                if not kind or is_block:
                    return
                continue
            failures += kind == "?"
            place = into if into is not None else self.rulesets.setdefault(self._current, [])
            new = self._statement(cursor, kind, text)
            # `!program` and `+host` filter everything that follows.
            place += [_Statement("maybe", block=new)] if self._has_tag and new else new
        cursor.at = len(cursor.text)

    def _statement(self, cursor: Cursor, kind: str, text: str) -> list[_Statement]:
        if kind == "priority":
            mask = mask_of(text)
            if mask is None:
                self._gaps.add(f"the selector is not understood: {text}", cursor.path)
            return [_Statement("maybe" if mask is None else "priority", mask=mask or 0, block=self._block(cursor))]
        if kind == "property":
            return [_Statement("maybe", block=self._block(cursor))]
        if kind in {"tag", "host"}:
            self._has_tag = text[1:].strip() != "*"
            return []
        if kind == "setting":
            return self._setting(text)
        if kind == "object":
            return self._object(cursor, text[:-1].strip().lower())
        if kind == "word" and text.lower() in _KEYWORDS:
            return self._keyword(cursor, text.lower())
        if kind in {"output", "word"}:
            return self._chain(cursor, [self._output(text, cursor.path) if kind == "output" else _Statement("output")])
        self._fail("not understood", cursor.path)
        return []

    def _block(self, cursor: Cursor) -> list[_Statement]:
        """Parses what a filter applies to: one statement, or those in braces."""
        self._depth += 1
        statements: list[_Statement] = []
        kind, text = cursor.next()
        while kind == "setting":
            statements += self._setting(text)
            kind, text = cursor.next()
        if not kind or self._depth > _MAX_NESTED:
            self._fail("a filter without an action, or too many blocks", cursor.path)
            cursor.at = len(cursor.text)
        elif kind == "mark" and text == "{":
            self._sequence(cursor, statements, is_block=True)
        else:
            statements += self._statement(cursor, kind, text)
        self._depth -= 1
        return statements

    def _chain(self, cursor: Cursor, statements: list[_Statement]) -> list[_Statement]:
        """Adds the actions that follow with `&`."""
        while True:
            kind, text = cursor.peek()
            while kind == "setting" and not text.lower().startswith(("$includeconfig", "$ruleset")):
                cursor.next()
                self._setting(text)
                kind, text = cursor.peek()
            if (kind, text) != ("mark", "&"):
                return statements
            cursor.next()
            kind, text = cursor.next()
            if kind == "output":
                statements.append(self._output(text, cursor.path))
            elif kind == "word":
                statements.append(_Statement("stop" if text.lower() == "stop" else "output"))
            elif kind == "object" and text.lower().startswith("action"):
                statements += self._action(self._pairs(cursor), cursor.path)
            else:
                self._fail("not understood after &", cursor.path)

    def _keyword(self, cursor: Cursor, word: str) -> list[_Statement]:
        if word == "stop":
            return self._chain(cursor, [_Statement("stop")])
        if word == "continue":
            return []
        if word == "if":
            return self._condition(cursor)
        if word == "foreach":
            self._expression(cursor, "do")
            return [_Statement("maybe", block=self._block(cursor))]
        if word in {"set", "reset", "unset"}:
            self._expression(cursor, ";")
            return []
        if word == "call" and (name := _NAME.match(cursor.text, cursor.at)):
            cursor.at = name.end()
            return [_Statement("call", name=name[1].lower())]
        self._fail(f"not understood: {word}", cursor.path)
        cursor.skip_line()
        return []

    def _condition(self, cursor: Cursor) -> list[_Statement]:
        tokens = self._expression(cursor, "then")
        statement = _Statement("maybe", block=self._block(cursor))
        if cursor.peek() == ("word", "else"):
            cursor.next()
            statement.otherwise = self._block(cursor)
        if len(tokens) == 1 and tokens[0].isdecimal():
            return statement.block if int(tokens[0]) else statement.otherwise
        if len(tokens) == 4 and [token.lower() for token in tokens[:2]] == ["prifilt", "("]:
            mask = mask_of(tokens[2][1:-1])
            if mask is not None:
                statement.kind, statement.mask = "priority", mask
                return [statement]
        if has_constant_clause(tokens):
            self._gaps.add("a condition without a property is not understood", cursor.path)
            return []
        return [statement]

    def _expression(self, cursor: Cursor, end: str) -> list[str]:
        """Returns the tokens of an expression up to its end."""
        tokens: list[str] = []
        while found := EXPRESSION.match(cursor.text, cursor.at):
            cursor.at = found.end()
            if found.lastgroup is None:
                continue
            if found[0].lower() == end:
                return tokens
            tokens.append(found[0])
        self._fail("an expression is not understood", cursor.path)
        cursor.skip_line()
        return tokens

    def _pairs(self, cursor: Cursor) -> dict[str, list[str]]:
        """Returns the parameters of an object, names in lower case."""
        pairs: dict[str, list[str]] = {}
        while found := PAIR.match(cursor.text, cursor.at):
            cursor.at = found.end()
            if found["end"]:
                return pairs
            if found["key"]:
                values = re.findall(r'"((?:[^"\\]|\\.)*)"', found["value"])
                if not values:
                    self._gaps.add(f"the value of {found['key']} is not understood", cursor.path)
                pairs[found["key"].lower()] = values
        self._fail("an object is not understood", cursor.path)
        cursor.skip_line()
        return pairs

    def _object(self, cursor: Cursor, name: str) -> list[_Statement]:
        pairs = self._pairs(cursor)
        is_on = pairs.get("config.enabled", ["on"])[:1] == [] or pairs.get("config.enabled", ["on"])[0].lower() in _ON
        if name == "action":
            return self._chain(cursor, self._action(pairs, cursor.path) if is_on else [])
        if name == "include":
            return self._include(pairs, cursor.path) if is_on else []
        if name in {"ruleset", "template"} and cursor.peek() == ("mark", "{"):
            body = self._block(cursor)
            if name == "ruleset" and is_on:
                self.rulesets.setdefault(pairs.get("name", [""])[0].lower(), []).extend(body)
        kind = (pairs.get("type") or pairs.get("load") or [""])[0].lower()
        if name in {"input", "module"} and "ruleset" in pairs and kind not in _NETWORK_INPUTS:
            self.inputs.update(value.lower() for value in pairs["ruleset"])
        return []

    def _action(self, pairs: dict[str, list[str]], path: str) -> list[_Statement]:
        kind = pairs.get("type", [""])[0].lower()
        if kind == "omfile":
            return [_Statement("output", path=pairs.get("file", [_DYNAMIC])[0])]
        if kind in _LOCAL_OUTPUTS:
            return [_Statement("stop" if kind == "omdiscard" else "output")]
        if kind not in {"omfwd", "omrelp"} or not pairs.get("target") or not all(map(is_host, pairs["target"])):
            self._gaps.add(f"the output {kind or '?'} is not read, or its target", path)
            return []
        if pairs.get("action.execonlywhenpreviousissuspended", ["off"])[0].lower() in _ON:
            return []
        protocol = "relp" if kind == "omrelp" else pairs.get("protocol", ["udp"])[0].lower()
        is_tls = pairs.get("streamdrivermode", [""])[0] == "1" or pairs.get("tls", [""])[0].lower() == "on"
        ports = pairs.get("port") or ["514"]
        return [
            _Statement("output", LogTarget("tls" if is_tls else protocol, host, ports[min(at, len(ports) - 1)]))
            for at, host in enumerate(pairs["target"])
        ]

    def _output(self, text: str, path: str) -> _Statement:
        """Reads an action of one word."""
        bare = text.strip()
        if bare == "~":
            return _Statement("stop")
        if bare.startswith("@"):
            if (match := _LEGACY.match(bare[:1024])) is None:
                self._gaps.add(f"the target is not understood: {bare}", path)
                return _Statement("output")
            protocol = "udp" if match[1] == "@" else "tls" if self._is_tls else "tcp"
            target = LogTarget(protocol, match[2], match[3] or "514")
            return _Statement("output", None if self._is_spare else target)
        if match := _RELP.match(bare[:1024]):
            return _Statement("output", LogTarget("relp", match[1], match[2] or "514"))
        if bare.startswith(">") or (bare.startswith(":") and bare[1:].partition(":")[0].lower() not in _LOCAL_OUTPUTS):
            self._gaps.add(f"the output is not read: {bare}", path)
        if bare.lstrip("-").startswith("?"):
            return _Statement("output", path=_DYNAMIC)
        is_file = bare.startswith(("/", "-/"))
        return _Statement("output", path=bare.lstrip("-").partition(";")[0].strip() if is_file else "")

    def _setting(self, text: str) -> list[_Statement]:
        """Follows `$IncludeConfig` and the settings that concern outputs."""
        words = text.partition("#")[0].split()
        name, value = words[0][1:].lower(), words[1] if len(words) > 1 else ""
        if name == "ruleset":
            self._current = value.lower()
        elif name == "defaultruleset":
            self.default = value.lower()
        elif name == "actionsendstreamdrivermode":
            self._is_tls = value == "1"
        elif name == "actionexeconlywhenpreviousissuspended":
            self._is_spare = value.lower() in _ON
        elif name == "includeconfig":
            return self._included(value)
        return []

    def _include(self, pairs: dict[str, list[str]], path: str) -> list[_Statement]:
        if not pairs.get("file"):
            self._gaps.add("the include is not understood", path)
            return []
        return self._included(pairs["file"][0])

    def _included(self, pattern: str) -> list[_Statement]:
        """Reads a file, the files of a folder, or those that a pattern names; returns their statements."""
        statements: list[_Statement] = []
        folder, _, name = pattern.rpartition("/")
        with self._gaps.capture(pattern):
            if not folder.startswith("/") or any(mark in folder for mark in "*?["):
                raise ValueError("the include is not understood")
            files = self._budget.files_in(self._system.path(folder), name or "*")
            if not files and not any(mark in name for mark in "*?[") and self._system.path(pattern).is_dir():
                folder, files = pattern, self._budget.files_in(self._system.path(pattern))
            for file in files:
                if not file.name.startswith("."):
                    self.read_file(f"{folder}/{file.name}", statements, self._depth + 1)
        return statements
