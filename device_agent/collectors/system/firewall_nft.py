"""Reads the rule set of nftables, in the form that `nft -j list ruleset` prints. [libnftables-json(5)]"""

import json
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final

from device_agent.collectors.system.firewall_conditions import (
    Conditions,
    Context,
    NotUnderstoodError,
    concatenated,
    elements_of,
    match_conditions,
    simple_conditions,
)
from device_agent.collectors.system.firewall_ruleset import (
    CHOSEN,
    FAMILIES,
    UNCLEAR,
    BaseChain,
    Condition,
    Rule,
    Ruleset,
)
from device_agent.host.reading import ReadingGap

_VERDICTS: Final = frozenset({"accept", "drop", "return"})
_NO_EFFECT: Final = frozenset(
    {
        "counter", "log", "comment", "notrack", "continue", "dup", "flow", "secmark", "ct helper", "ct timeout",
        "ct expectation", "last", "reset",
    }
)  # fmt: skip
_LIMITS: Final = frozenset({"limit", "quota", "ct count"})
_TRANSLATIONS: Final = frozenset({"dnat", "redirect", "snat", "masquerade"})
_REDIRECTIONS: Final = frozenset({"dnat", "redirect", "tproxy"})
_LOGGING_TARGETS: Final = frozenset({"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CT", "AUDIT", "CHECKSUM"})
_CHAIN_TYPES: Final = frozenset({"filter", "nat", "route"})
_LIVE_FLAGS: Final = frozenset({"owner", "persist"})
_MAX_ALTERNATIVES: Final = 4096  # rules that the elements of one rule's sets stand for


def parse_nft_ruleset(text: str) -> Ruleset:
    """Reads the output of `nft -j list ruleset`.

    Raises:
        ValueError, KeyError: the text is not such an output.
    """
    ruleset = json.loads(text or '{"nftables": []}')
    if not isinstance(ruleset, dict) or not isinstance(ruleset["nftables"], list):
        raise ValueError("not an nftables ruleset")  # noqa: TRY004 - bad content, not a caller's error
    return read_nft(ruleset["nftables"])


def read_nft(objects: Iterable[Any]) -> Ruleset:
    """Reads the objects of `nft -j list ruleset`; what is not understood becomes a gap."""
    items = [item for item in objects if isinstance(item, dict)]
    ruleset = Ruleset()
    dormant, uncertain = _table_states(items)
    live = [
        (kind, value, _table_name(value))
        for item in items
        for kind, value in item.items()
        if isinstance(value, dict) and kind != "table" and _table_name(value) not in dormant
    ]
    statements = [statement for kind, value, _ in live if kind == "rule" for statement in _statements(value)]
    ruleset.redirects = any(_redirects(kind, value) for kind, value in statements)
    contexts = _contexts(live, redirects=ruleset.redirects)
    for kind, value, table in live:
        if kind == "rule":
            ruleset.count += 1
            rules = ruleset.rules.setdefault((table, str(value.get("chain"))), [])
            rules += _Reader(f"{table} {value.get('chain')}", contexts.get(table, Context()), ruleset).rules_of(value)
        elif kind == "chain" and value.get("hook") and value.get("type") in _CHAIN_TYPES:
            _add_chain(ruleset, value, table, is_certain=table not in uncertain)
        if kind == "chain":
            ruleset.rules.setdefault((table, str(value.get("name"))), [])
    # nft 1.0.6 prints the flags of tables from a wrong place in memory, as any text.
    ruleset.needs_text |= any(isinstance(item.get("table"), dict) and "flags" in item["table"] for item in items)
    _check_targets(ruleset)
    ruleset.gaps += [ReadingGap("flags of a table that were not understood", table) for table in sorted(uncertain)]
    return ruleset


def _check_targets(ruleset: Ruleset) -> None:
    """Replaces jumps to chains that are not listed."""
    for (table, _), rules in ruleset.rules.items():
        for at, rule in enumerate(rules):
            if rule.target and (table, rule.target) not in ruleset.rules:
                ruleset.gaps.append(ReadingGap("a chain that is not listed", rule.source))
                rules[at] = Rule(rule.conditions, "unknown", source=rule.source)


def _table_name(value: Mapping[str, Any]) -> str:
    return f"{value.get('family')} {value.get('table')}"


def _table_states(items: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """Returns the dormant tables and those whose flags are not known."""
    dormant, uncertain = set(), set()
    for item in items:
        table = item.get("table")
        if isinstance(table, dict) and table.get("flags"):
            name, flags = f"{table.get('family')} {table.get('name')}", table["flags"]
            flags = {str(flag) for flag in (flags if isinstance(flags, list) else [flags])}
            if "dormant" in flags:
                dormant.add(name)
            elif not flags <= _LIVE_FLAGS:
                uncertain.add(name)
    return dormant, uncertain


def _statements(rule: Mapping[str, Any]) -> list[tuple[str, Any]]:
    expressions = rule.get("expr")
    if not isinstance(expressions, list):
        return [("", None)] if expressions is not None else []
    return [
        next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", item) for item in expressions
    ]


def _redirects(kind: str, value: Any) -> bool:
    """Whether a statement changes the address or port that a packet goes to."""
    if kind == "xt":
        return isinstance(value, dict) and value.get("name") in {"DNAT", "REDIRECT", "TPROXY", "NETMAP"}
    return (
        kind in _REDIRECTIONS
        or (kind == "mangle" and "dport" in str(value))
        or (kind == "mangle" and "addr" in str(value))
    )


def _names_ports(statements: list[tuple[str, Any]]) -> bool:
    """Whether a rule is about few ports of destination, given as numbers."""
    for kind, value in statements:
        left = value.get("left") if kind == "match" and isinstance(value, dict) else None
        if isinstance(left, dict) and "dport" in str(left.get("payload")) and value.get("op") in {"==", "in"}:
            right = value.get("right")
            numbers = right.get("set") if isinstance(right, dict) else [right]
            if isinstance(numbers, list) and all(isinstance(number, int) for number in numbers):
                return True
    return False


def _readdresses(kind: str, value: Any) -> bool:
    """Whether a statement sends packets past the rules for this host: to another address, or to a socket of a proxy."""
    if kind == "xt":
        return isinstance(value, dict) and value.get("name") in {"DNAT", "TPROXY", "NETMAP"}
    return kind in {"dnat", "tproxy"} or (kind == "mangle" and "daddr" in str(value))


def _contexts(live: list[tuple[str, dict[str, Any], str]], *, redirects: bool) -> dict[str, Context]:
    sets: dict[str, dict[str, list[Any]]] = {}
    changed: dict[str, set[str]] = {}
    for kind, value, table in live:
        if kind in {"set", "map"}:
            elements = value.get("elem", [])
            sets.setdefault(table, {})[str(value.get("name"))] = elements if isinstance(elements, list) else [elements]
        elif kind == "rule":
            names = (str(v.get(k, "")) for k, v in _statements(value) if k in {"set", "map"} and isinstance(v, dict))
            changed.setdefault(table, set()).update(name.removeprefix("@") for name in names)
    rules = [_statements(value) for kind, value, _ in live if kind == "rule"]
    statements = [statement for rule in rules for statement in rule]
    widely = any(not _names_ports(rule) for rule in rules if any(_redirects(kind, value) for kind, value in rule))
    untracks = any(kind == "notrack" or (kind == "xt" and "CT" in str(value)) for kind, value in statements)
    marks = any(
        (kind == "mangle" and "mark" in str(value)) or (kind == "xt" and "MARK" in str(value))
        for kind, value in statements
    )
    tables = {table for _, _, table in live}
    return {
        table: Context(
            sets.get(table, {}),
            frozenset(changed.get(table, ())),
            untracks=untracks,
            marks=marks,
            redirects=redirects,
            redirects_widely=widely,
        )
        for table in tables
    }


def _add_chain(ruleset: Ruleset, value: Mapping[str, Any], table: str, *, is_certain: bool) -> None:
    family = str(value.get("family"))
    hook, policy = str(value.get("hook")), str(value.get("policy", "accept"))
    if family not in FAMILIES:
        return
    devices = value.get("dev", [])
    names = frozenset(str(name) for name in (devices if isinstance(devices, list) else [devices]))
    if hook == "ingress" and not names:  # nft 1.0.6 does not say for which interface
        is_certain = False
        ruleset.needs_text = True
    priority = value.get("prio", 0)
    ruleset.base_chains.append(
        BaseChain(
            FAMILIES[family],
            table,
            str(value.get("name")),
            hook,
            priority if isinstance(priority, int) else 0,
            policy if policy in {"accept", "drop"} else "unknown",
            names,
            is_certain,
            str(value.get("type")),
        )
    )


class _Reader:
    """Turns one rule into rules whose conditions all have to be met."""

    def __init__(self, source: str, context: Context, ruleset: Ruleset) -> None:
        self._source = source
        self._context = context
        self._gaps = ruleset.gaps
        self._alternatives: list[list[Conditions]] = []
        self._readdresses = False

    def rules_of(self, rule: Mapping[str, Any]) -> list[Rule]:
        for kind, value in _statements(rule):
            if _readdresses(kind, value):
                self._readdresses = True
                if "proxy" in f"{kind} {value}".lower():  # to a socket of any port
                    self._alternatives = [
                        [tuple(c for c in conditions if c.field != "dport") for conditions in alternatives]
                        for alternatives in self._alternatives
                    ]
            if kind == "vmap":
                return self._expand(self._verdict_map(value))
            verdict = self._verdict(kind, value)
            if verdict is not None:
                return self._expand([((), *verdict)])
            self._add_conditions(kind, value)
        return self._expand([((), "", "")]) if self._readdresses else []

    def _add_conditions(self, kind: str, value: Any) -> None:
        if kind == "match" and isinstance(value, dict):
            try:
                alternatives = match_conditions(
                    value.get("left"), str(value.get("op")), value.get("right"), self._context
                )
            except NotUnderstoodError as e:
                self._gap(str(e))
                alternatives = [(Condition("chance", chance=UNCLEAR),)]
            self._alternatives.append(alternatives)
        elif kind in _LIMITS or (kind in {"set", "map", "meter"} and _has_limit(value)):
            self._alternatives.append([(Condition("chance", chance=CHOSEN),)])
        elif (
            kind == "xt" and isinstance(value, dict) and value.get("type") == "match" and value.get("name") == "comment"
        ):
            return
        elif kind not in _NO_EFFECT and kind not in {"set", "map", "mangle", "tproxy"}:
            named = f" {value.get('name')}" if isinstance(value, dict) and kind == "xt" else ""
            self._gap(f"a statement {kind}{named}")
            self._alternatives.append([(Condition("chance", chance=UNCLEAR),)])

    def _verdict(self, kind: str, value: Any) -> tuple[str, str] | None:
        """Returns the verdict of a statement and the chain it names; None if it is no verdict."""
        if kind in _VERDICTS:
            return kind, ""
        if kind in {"jump", "goto"}:
            target = value.get("target") if isinstance(value, dict) else None
            return (kind, target) if isinstance(target, str) else self._unknown(kind)
        if kind == "reject":
            self._add_reject(value)
            return "reject", ""
        if kind in _TRANSLATIONS:
            return "accept", ""
        if kind == "xt" and isinstance(value, dict) and value.get("type") == "target":
            name = str(value.get("name"))
            if name in _LOGGING_TARGETS:
                return "", ""
            return ("reject", "") if name == "REJECT" else self._unknown(f"target {name}")
        if kind in {"queue", "synproxy", "fwd", "unknown", ""} or (kind == "xt" and not isinstance(value, dict)):
            return self._unknown(kind or "of an unknown form")
        return None

    def _add_reject(self, value: Any) -> None:
        # nft leaves out matches that the kind of answer implies, and with `tcp reset` also one of the family.
        kind = str(value.get("type")) if isinstance(value, dict) else ""
        implied = {"tcp reset": ("protocol", "tcp"), "icmp": ("family", "ip"), "icmpv6": ("family", "ip6")}.get(kind)
        if implied:
            self._alternatives.append([(Condition(implied[0], frozenset({implied[1]})),)])
        known = {c.field for alternatives in self._alternatives for conditions in alternatives for c in conditions}
        if kind == "tcp reset" and self._source.startswith("inet ") and "family" not in known:
            self._gap("the family of a reject with tcp reset, which nft does not show")
            self._alternatives.append([(Condition("chance", chance=UNCLEAR),)])

    def _unknown(self, what: str) -> tuple[str, str]:
        self._gap(f"a statement {what}")
        return "unknown", ""

    def _gap(self, reason: str) -> None:
        self._gaps.append(ReadingGap(reason, self._source))

    def _verdict_map(self, value: Any) -> list[tuple[Conditions, str, str]]:
        """Returns conditions, verdict and chain for each element of a verdict map."""
        try:
            return self._elements_of_map(value)
        except NotUnderstoodError as e:
            self._gap(str(e))
            return [((), "unknown", "")]

    def _elements_of_map(self, value: Any) -> list[tuple[Conditions, str, str]]:
        key = value.get("key") if isinstance(value, dict) else None
        if not isinstance(key, dict) or len(key) != 1:
            raise NotUnderstoodError("a verdict map of an unknown form")
        (kind, field), data = next(iter(key.items())), value.get("data")
        if isinstance(data, str) and data.removeprefix("@") in self._context.changed_sets:
            raise NotUnderstoodError("a verdict map that packets change")
        found, keys, rest = [], [], None
        for pair in elements_of(data, self._context):
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], dict) or len(pair[1]) != 1:
                raise NotUnderstoodError("an element of a verdict map of an unknown form")
            element = (
                pair[0]["elem"].get("val")
                if isinstance(pair[0], dict) and isinstance(pair[0].get("elem"), dict)
                else pair[0]
            )
            verdict = self._verdict(*next(iter(pair[1].items()))) or ("", "")
            if element == "*" and not (kind == "meta" and "name" in str(field)):
                rest = verdict
                continue
            keys.append(element)
            if kind == "concat":
                found.append((concatenated(field, element, self._context), *verdict))
            else:
                found.append((simple_conditions(kind, field, "==", [element], self._context), *verdict))
        if rest is not None:
            if kind == "concat":
                raise NotUnderstoodError("a verdict map of concatenations with a default")
            found.append((simple_conditions(kind, field, "!=", keys, self._context) if keys else (), *rest))
        return found

    def _expand(self, verdicts: list[tuple[Conditions, str, str]]) -> list[Rule]:
        size = len(verdicts)
        for alternatives in self._alternatives:
            size *= len(alternatives)
        if size > _MAX_ALTERNATIVES:
            self._gap("a rule with too many combinations of elements")
            return [Rule((Condition("chance", chance=UNCLEAR),), "unknown", source=self._source)]
        return [
            Rule(
                tuple(c for part in (*parts, conditions) for c in part),
                verdict,
                target,
                self._source,
                self._readdresses,
            )
            for parts in product(*self._alternatives)
            for conditions, verdict, target in verdicts
            if verdict or self._readdresses
        ]


def _has_limit(value: Any) -> bool:
    if not isinstance(value, dict):
        return True
    statements = value.get("stmt", [])
    statements = statements if isinstance(statements, list) else [statements]
    return any(not isinstance(item, dict) or not item.keys() <= {"counter", "last"} for item in statements)
