"""Evaluates the kernel's packet filter: the verdict at the end of each chain, and the ports that its rules cover.

nftables and iptables rules are parsed into the same model, so that both are evaluated alike. Any match beyond
protocol, port and new connections makes a rule conditional. A conditional drop or reject still covers its port; a
conditional accept does not, because it decides nothing for other packets.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PortRanges = tuple[tuple[int, int], ...]
"""Ranges of ports, each with its first and last port."""

_VERDICTS: Final = frozenset({"accept", "drop", "reject"})
_CLOSING: Final = frozenset({"drop", "reject"})
_PROTOCOLS: Final = frozenset({"tcp", "udp"})
_FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "inet": frozenset({"ip", "ip6"}), "ip": frozenset({"ip"}), "ip6": frozenset({"ip6"}),
}  # fmt: skip
_MAX_DEPTH: Final = 16  # nested chains, as in the kernel
_MAX_STEPS: Final = 100_000  # rules evaluated for one chain
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')  # a quoted comment is one token
_LAST_PORT: Final = 65535
_UNCONDITIONAL: Final = frozenset({"counter", "log", "comment", "reject", "accept", "drop", "return", "jump", "goto"})


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A rule: None for protocols or ports means all; `target` is the chain to jump to."""

    verdict: str = ""
    target: str = ""
    protocols: frozenset[str] | None = None
    ports: PortRanges | None = None
    is_conditional: bool = False


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A chain attached to a hook.

    `default_verdict` applies to packets that no rule matches; `covered` has protocol, first and last port of the
    rules that decide about ports.
    """

    families: frozenset[str]
    table: str
    name: str
    hook: str
    default_verdict: str
    rules: int
    covered: frozenset[tuple[str, int, int]]

    @property
    def is_filtering(self) -> bool:
        """Whether the chain has an effect."""
        return self.default_verdict in _CLOSING or self.rules > 0

    def covers(self, protocol: str, port: int) -> bool:
        """Whether the chain decides about this port: by a rule, or by a closed default."""
        if self.default_verdict in _CLOSING:
            return True
        return any(p == protocol and low <= port <= high for p, low, high in self.covered)


@dataclass(slots=True)
class _ChainWalker:
    chains: Mapping[str, list[FirewallRule]]
    covered: set[tuple[str, int, int]] = field(default_factory=set)
    steps: int = 0

    def verdict_of(self, name: str, depth: int = 0, *, is_conditional: bool = False) -> str:
        """Returns the verdict for a packet that no rule matches; empty when the chain returns to its caller."""
        if depth > _MAX_DEPTH:
            return ""
        for rule in self.chains.get(name, ()):
            self.steps += 1
            if self.steps > _MAX_STEPS:
                return ""
            is_for_all = rule.protocols is None and rule.ports is None and not rule.is_conditional
            if rule.target:
                nested = is_conditional or not is_for_all
                verdict = self.verdict_of(rule.target, depth + 1, is_conditional=nested)
                if is_for_all and verdict:
                    return verdict
            elif is_for_all and rule.verdict:
                return "" if rule.verdict == "return" else rule.verdict
            elif rule.verdict in _CLOSING or (
                rule.verdict == "accept" and not rule.is_conditional and not is_conditional
            ):
                self._record(rule)
        return ""

    def _record(self, rule: FirewallRule) -> None:
        # A rule without ports may be limited to any port by a condition that is not evaluated here.
        if rule.ports is None and (rule.protocols is None or rule.is_conditional):
            return
        for protocol in (rule.protocols or _PROTOCOLS) & _PROTOCOLS:
            self.covered.update((protocol, low, high) for low, high in rule.ports or ((1, _LAST_PORT),))


def evaluate_chain(
    families: frozenset[str], table: str, name: str, hook: str, policy: str, chains: Mapping[str, list[FirewallRule]]
) -> FilterChain:
    """Walks a chain from its first rule to its end."""
    walker = _ChainWalker(chains)
    verdict = walker.verdict_of(name) or policy
    return FilterChain(families, table, name, hook, verdict, len(chains.get(name, ())), frozenset(walker.covered))


def default_verdict_at(chains: Iterable[FilterChain], hook: str, families: frozenset[str]) -> str:
    """Returns the verdict at a hook for packets that no rule matches; the more open of the families' verdicts."""
    by_family = []
    for family in sorted(families):
        verdicts = {chain.default_verdict for chain in chains if chain.hook == hook and family in chain.families}
        strictest = next((verdict for verdict in ("drop", "reject", "accept") if verdict in verdicts), "unknown")
        by_family.append(strictest if verdicts else "accept")
    return next((verdict for verdict in ("accept", "unknown", "reject", "drop") if verdict in by_family), "unknown")


def read_nft(objects: Iterable[Any]) -> tuple[list[FilterChain], int]:
    """Returns the filter chains and the number of rules in the objects of `nft -j list ruleset`; skips malformed ones.

    [libnftables-json(5)]
    """
    items = [item for item in objects if isinstance(item, dict)]
    sets: dict[tuple[str, str], dict[str, PortRanges]] = {}
    rules: dict[tuple[str, str], dict[str, list[FirewallRule]]] = {}
    count = 0
    for nft_set in _of_kind(items, "set"):
        sets.setdefault(_table_key(nft_set), {})[str(nft_set.get("name"))] = _ports(nft_set.get("elem"), {})
    for nft_rule in _of_kind(items, "rule"):
        count += 1
        key = _table_key(nft_rule)
        rule = _nft_rule(nft_rule.get("expr"), sets.get(key, {}))
        rules.setdefault(key, {}).setdefault(str(nft_rule.get("chain")), []).append(rule)
    chains = [
        evaluate_chain(
            _FAMILIES[family],
            f"{family} {table}",
            str(chain.get("name")),
            str(chain.get("hook")),
            str(chain.get("policy", "accept")),
            rules.get((family, table), {}),
        )
        for chain in _of_kind(items, "chain")
        if chain.get("hook") and chain.get("type") == "filter" and (family := _table_key(chain)[0]) in _FAMILIES
        for table in (_table_key(chain)[1],)
    ]
    return chains, count


def _of_kind(items: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item[kind] for item in items if isinstance(item.get(kind), dict)]


def _table_key(item: Mapping[str, Any]) -> tuple[str, str]:
    return str(item.get("family")), str(item.get("table"))


def _nft_rule(expressions: Any, sets: Mapping[str, PortRanges]) -> FirewallRule:
    verdict = target = ""
    protocols: frozenset[str] | None = None
    ports: PortRanges | None = None
    is_conditional = False
    for item in expressions if isinstance(expressions, list) else ():
        if not isinstance(item, dict) or not item:
            continue
        kind, value = next(iter(item.items()))
        if kind == "match" and isinstance(value, dict):
            matched = _match(value, sets)
            if matched is None:
                is_conditional = True
            else:
                protocols = matched[0] if matched[0] is not None else protocols
                ports = matched[1] if matched[1] is not None else ports
        elif kind in {"jump", "goto"} and isinstance(value, dict):
            target = str(value.get("target", ""))
        elif kind in _VERDICTS or kind == "return":
            verdict = kind
        elif kind == "xt" and isinstance(value, dict) and value.get("type") == "target":
            verdict = "reject" if value.get("name") == "REJECT" else verdict
        elif kind not in _UNCONDITIONAL and not _is_comment_match(value):
            is_conditional = True
    return FirewallRule(verdict, target, protocols, ports, is_conditional)


def _is_comment_match(value: Any) -> bool:
    """Whether it is a comment of iptables, which nft lists as a match."""
    return isinstance(value, dict) and value.get("name") == "comment"


def _match(
    match: Mapping[str, Any], sets: Mapping[str, PortRanges]
) -> tuple[frozenset[str] | None, PortRanges | None] | None:
    """Returns the protocols and ports that a match selects; None for any other condition."""
    left, right = match.get("left"), match.get("right")
    if match.get("op") not in {"==", "in"} or not isinstance(left, dict):
        return None
    payload, meta, ct = (_object(left, key) for key in ("payload", "meta", "ct"))
    if payload.get("field") == "dport":
        protocol = payload.get("protocol")
        return (frozenset({protocol}) if protocol in _PROTOCOLS else None), _ports(right, sets)
    if meta.get("key") == "l4proto" or payload.get("field") in {"protocol", "nexthdr"}:
        return frozenset(str(value) for value in _values(right)), None
    if ct.get("key") == "state" and "new" in _values(right):
        return None, None
    return None


def _object(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _values(right: Any) -> list[Any]:
    if isinstance(right, dict):
        right = right.get("set")
    return right if isinstance(right, list) else [right]


def _ports(right: Any, sets: Mapping[str, PortRanges]) -> PortRanges:
    if isinstance(right, str) and right.startswith("@"):
        return sets.get(right[1:], ())
    ranges = []
    for value in _values(right):
        ends = value.get("range") if isinstance(value, dict) else [value, value]
        if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int) for end in ends):
            ranges.append((int(ends[0]), int(ends[1])))
    # A single `{"range": [1, 2]}` outside of a set.
    if isinstance(right, dict) and isinstance(right.get("range"), list):
        return _ports([right], sets)
    return tuple(ranges)


def read_iptables(text: str, family: str) -> tuple[list[FilterChain], int]:
    """Returns the built-in chains and the number of rules in the output of `iptables-save -t filter`."""
    policies: dict[str, str] = {}
    rules: dict[str, list[FirewallRule]] = {}
    count = 0
    for line in text.splitlines():
        tokens = _TOKEN.findall(line)
        if line.startswith(":") and len(tokens) > 1:
            policies[tokens[0][1:]] = tokens[1].lower()
        elif line.startswith("-A ") and len(tokens) > 1:
            count += 1
            rules.setdefault(tokens[1], []).append(_iptables_rule(tokens[2:]))
    chains = [
        evaluate_chain(frozenset({family}), f"{family} filter", name, name.lower(), policies[name], rules)
        for name in ("INPUT", "FORWARD", "OUTPUT")
        if policies.get(name) in _VERDICTS
    ]
    return chains, count


def _iptables_rule(tokens: list[str]) -> FirewallRule:
    verdict = target = ""
    protocols: frozenset[str] | None = None
    ports: PortRanges | None = None
    is_conditional = False
    rest = iter(tokens)
    for option in rest:
        if option == "!":  # negates the following match
            next(rest, "")
            is_conditional = True
            continue
        value = next(rest, "") if option.startswith("-") else ""
        if option in {"-j", "-g"}:
            lower = value.lower()
            verdict = lower if lower in _VERDICTS or lower == "return" else ""
            target = "" if verdict or value in {"LOG", "NFLOG"} else value
            break  # options of the target follow
        if option in {"-p", "--protocol"}:
            protocols = frozenset({value})
        elif option in {"--dport", "--dports"}:
            ports = _iptables_ports(value)
        elif option in {"--state", "--ctstate"} and "NEW" in value.split(","):
            continue
        elif option not in {"-m", "--comment"}:
            is_conditional = True
    return FirewallRule(verdict, target, protocols, ports, is_conditional)


def _iptables_ports(text: str) -> PortRanges:
    ranges = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        if low.isdecimal() and (high or low).isdecimal() and len(low) < 6 and len(high) < 6:
            ranges.append((int(low), int(high or low)))
    return tuple(ranges)
