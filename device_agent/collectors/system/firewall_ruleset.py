"""What a kernel's packet filter does with a packet, by its rules: where a chain ends, which ports it speaks of.

nftables and iptables are read into the same few values, so that both are judged alike. What a rule asks beyond
protocol, port and a new connection only makes it conditional: a conditional refusal still guards its port, a
conditional permission decides nothing for everybody else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PortRanges = tuple[tuple[int, int], ...]
"""Ranges of ports, first and last."""

_DECIDING: Final = frozenset({"accept", "drop", "reject"})
_CLOSING: Final = frozenset({"drop", "reject"})
_PROTOCOLS: Final = frozenset({"tcp", "udp"})
_FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "inet": frozenset({"ip", "ip6"}), "ip": frozenset({"ip"}), "ip6": frozenset({"ip6"}),
}  # fmt: skip
_MAX_DEPTH: Final = 16  # chains that call each other; the kernel's own limit is as low
_MAX_STEPS: Final = 100_000  # rules looked at for one chain
_WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')  # a comment in quotes is one
_LAST_PORT: Final = 65535
_HARMLESS: Final = frozenset({"counter", "log", "comment", "reject", "accept", "drop", "return", "jump", "goto"})


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A rule: None for protocols and ports means all; `target` is a chain to go on in."""

    verdict: str = ""
    target: str = ""
    protocols: frozenset[str] | None = None
    ports: PortRanges | None = None
    is_conditional: bool = False


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A chain that the kernel itself sends packets through; `end` is what becomes of one that no rule speaks of."""

    families: frozenset[str]
    table: str
    name: str
    hook: str
    end: str
    rules: int
    spoken: frozenset[tuple[str, int, int]]

    @property
    def is_filtering(self) -> bool:
        """Whether it does anything at all."""
        return self.end in _CLOSING or self.rules > 0

    def covers(self, protocol: str, port: int) -> bool:
        """Whether it decides about this port: by a rule, or by refusing what no rule admits."""
        return self.end in _CLOSING or any(p == protocol and low <= port <= high for p, low, high in self.spoken)


@dataclass(slots=True)
class _Walk:
    chains: Mapping[str, list[FirewallRule]]
    spoken: set[tuple[str, int, int]] = field(default_factory=set)
    steps: int = 0

    def end_of(self, name: str, depth: int = 0, *, is_for_some: bool = False) -> str:
        """What an ordinary packet meets in this chain; empty when it comes back out of it."""
        if depth > _MAX_DEPTH:
            return ""
        for rule in self.chains.get(name, ()):
            self.steps += 1
            if self.steps > _MAX_STEPS:
                return ""
            is_for_all = rule.protocols is None and rule.ports is None and not rule.is_conditional
            if rule.target:
                end = self.end_of(rule.target, depth + 1, is_for_some=is_for_some or not is_for_all)
                if is_for_all and end:
                    return end
            elif is_for_all and rule.verdict:
                return "" if rule.verdict == "return" else rule.verdict
            elif rule.verdict in _CLOSING or (rule.verdict == "accept" and not rule.is_conditional and not is_for_some):
                self._speak(rule)
        return ""

    def _speak(self, rule: FirewallRule) -> None:
        # Without ports a condition that is not understood may narrow it down to any of them.
        if rule.ports is None and (rule.protocols is None or rule.is_conditional):
            return
        for protocol in (rule.protocols or _PROTOCOLS) & _PROTOCOLS:
            self.spoken.update((protocol, low, high) for low, high in rule.ports or ((1, _LAST_PORT),))


def chain_of(
    families: frozenset[str], table: str, name: str, hook: str, policy: str, chains: Mapping[str, list[FirewallRule]]
) -> FilterChain:
    """Walk a chain from its first rule to its end."""
    walk = _Walk(chains)
    end = walk.end_of(name) or policy
    return FilterChain(families, table, name, hook, end, len(chains.get(name, ())), frozenset(walk.spoken))


def default_of(chains: Iterable[FilterChain], hook: str, families: frozenset[str]) -> str:
    """What happens to a packet no rule speaks of, at this hook; the more open answer where IPv4 and IPv6 differ."""
    ends = []
    for family in sorted(families):
        met = {chain.end for chain in chains if chain.hook == hook and family in chain.families}
        ends.append(
            next((end for end in ("drop", "reject", "accept") if end in met), "accept" if not met else "unknown")
        )
    return next((end for end in ("accept", "unknown", "reject", "drop") if end in ends), "unknown")


def read_nft(objects: Iterable[Any]) -> tuple[list[FilterChain], int]:
    """The filter chains and the number of rules in `nft -j list ruleset`'s objects; what is damaged is left out."""
    items = [item for item in objects if isinstance(item, dict)]
    sets: dict[tuple[str, str], dict[str, PortRanges]] = {}
    rules: dict[tuple[str, str], dict[str, list[FirewallRule]]] = {}
    count = 0
    for one in _of_kind(items, "set"):
        sets.setdefault(_home(one), {})[str(one.get("name"))] = _ports(one.get("elem"), {})
    for one in _of_kind(items, "rule"):
        count += 1
        home = _home(one)
        rule = _nft_rule(one.get("expr"), sets.get(home, {}))
        rules.setdefault(home, {}).setdefault(str(one.get("chain")), []).append(rule)
    chains = [
        chain_of(
            _FAMILIES[family],
            f"{family} {table}",
            str(one.get("name")),
            str(one.get("hook")),
            str(one.get("policy", "accept")),
            rules.get((family, table), {}),
        )
        for one in _of_kind(items, "chain")
        if one.get("hook") and one.get("type") == "filter" and (family := _home(one)[0]) in _FAMILIES
        for table in (_home(one)[1],)
    ]
    return chains, count


def _of_kind(items: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item[kind] for item in items if isinstance(item.get(kind), dict)]


def _home(one: Mapping[str, Any]) -> tuple[str, str]:
    return str(one.get("family")), str(one.get("table"))


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
            about = _match(value, sets)
            if about is None:
                is_conditional = True
            else:
                protocols = about[0] if about[0] is not None else protocols
                ports = about[1] if about[1] is not None else ports
        elif kind in {"jump", "goto"} and isinstance(value, dict):
            target = str(value.get("target", ""))
        elif kind in _DECIDING or kind == "return":
            verdict = kind
        elif kind == "xt" and isinstance(value, dict) and value.get("type") == "target":
            verdict = "reject" if value.get("name") == "REJECT" else verdict
        elif kind not in _HARMLESS and not _is_remark(value):
            is_conditional = True
    return FirewallRule(verdict, target, protocols, ports, is_conditional)


def _is_remark(value: Any) -> bool:
    """Whether it is a comment of iptables, which nft tells as a match."""
    return isinstance(value, dict) and value.get("name") == "comment"


def _match(
    match: Mapping[str, Any], sets: Mapping[str, PortRanges]
) -> tuple[frozenset[str] | None, PortRanges | None] | None:
    """Protocols and ports a match asks for; None for any other condition."""
    left, right = match.get("left"), match.get("right")
    if match.get("op") not in {"==", "in"} or not isinstance(left, dict):
        return None
    payload, meta, ct = (_object(left, key) for key in ("payload", "meta", "ct"))
    if payload.get("field") == "dport":
        named = payload.get("protocol")
        return (frozenset({named}) if named in _PROTOCOLS else None), _ports(right, sets)
    if meta.get("key") == "l4proto" or payload.get("field") in {"protocol", "nexthdr"}:
        return frozenset(str(one) for one in _values(right)), None
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
    found = []
    for one in _values(right):
        ends = one.get("range") if isinstance(one, dict) else [one, one]
        if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int) for end in ends):
            found.append((int(ends[0]), int(ends[1])))
    # `{"range": [1, 2]}` alone, not in a set.
    if isinstance(right, dict) and isinstance(right.get("range"), list):
        return _ports([right], sets)
    return tuple(found)


def read_iptables(text: str, family: str) -> tuple[list[FilterChain], int]:
    """The built-in chains and the number of rules in `iptables-save -t filter` (or `ip6tables-save`)."""
    policies: dict[str, str] = {}
    rules: dict[str, list[FirewallRule]] = {}
    count = 0
    for line in text.splitlines():
        words = _WORD.findall(line)
        if line.startswith(":") and len(words) > 1:
            policies[words[0][1:]] = words[1].lower()
        elif line.startswith("-A ") and len(words) > 1:
            count += 1
            rules.setdefault(words[1], []).append(_iptables_rule(words[2:]))
    chains = [
        chain_of(frozenset({family}), f"{family} filter", name, name.lower(), policies[name], rules)
        for name in ("INPUT", "FORWARD", "OUTPUT")
        if policies.get(name) in _DECIDING
    ]
    return chains, count


def _iptables_rule(words: list[str]) -> FirewallRule:
    verdict = target = ""
    protocols: frozenset[str] | None = None
    ports: PortRanges | None = None
    is_conditional = False
    waiting = iter(words)
    for word in waiting:
        if word == "!":  # everything but what follows
            next(waiting, "")
            is_conditional = True
            continue
        value = next(waiting, "") if word.startswith("-") else ""
        if word in {"-j", "-g"}:
            plain = value.lower()
            verdict = plain if plain in _DECIDING or plain == "return" else ""
            target = "" if verdict or value in {"LOG", "NFLOG"} else value
            break  # what follows are settings of the target
        if word in {"-p", "--protocol"}:
            protocols = frozenset({value})
        elif word in {"--dport", "--dports"}:
            ports = _iptables_ports(value)
        elif word in {"--state", "--ctstate"} and "NEW" in value.split(","):
            continue
        elif word not in {"-m", "--comment"}:
            is_conditional = True
    return FirewallRule(verdict, target, protocols, ports, is_conditional)


def _iptables_ports(text: str) -> PortRanges:
    found = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        if low.isdecimal() and (high or low).isdecimal() and len(low) < 6 and len(high) < 6:
            found.append((int(low), int(high or low)))
    return tuple(found)
