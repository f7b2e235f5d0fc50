"""Which ports a rule set lets a packet reach, as an over-approximation: certainly, possibly, or not.

The walk follows every rule with the set of ports that packets still have there. A chain that accepts hands its packets
to the next chain; a chain that drops ends them. [nft(8), "VERDICT STATEMENT"]
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from device_agent.collectors.system.firewall_ruleset import (
    ALL_PORTS,
    ALWAYS,
    BaseChain,
    Can,
    Chance,
    Packet,
    Rule,
    Ruleset,
    mask_of,
)

WIDE: Final = 16384  # ports; more of them are no choice of ports. The dynamic ports of IANA are as many.
_HOOKS: Final = {"input": ("ingress", "prerouting", "input"), "forward": ("forward",), "output": ("output",)}
_EARLY_HOOKS: Final = frozenset({"ingress", "prerouting"})
_TRACKING: Final = -200  # priority of connection tracking
_MAX_DEPTH: Final = 16  # of jumps, as in the kernel
_MAX_STEPS: Final = 100_000  # rules for one packet
_CLOSING: Final = frozenset({"drop", "reject"})


@dataclass(frozen=True, slots=True)
class Admission:
    """The ports that a packet reaches, as bit masks.

    `certain` and `possible` are disjoint; `unnamed` are those reached by a rule or policy that does not name them;
    `rejected` are refused with an answer; packets to `readdressed` ones may go elsewhere before the rules for input.
    """

    certain: int
    possible: int
    unnamed: int
    rejected: int
    readdressed: int = 0

    @property
    def default(self) -> str:
        """The verdict for ports in general: accept, drop, reject or unknown."""
        if self.certain.bit_count() > WIDE:
            return "accept"
        if (self.certain | self.possible).bit_count() > WIDE:
            return "unknown"
        return "reject" if self.rejected.bit_count() > WIDE else "drop"


class TooManyRulesError(ValueError):
    """The rule set takes too many steps to follow."""


def admitted(ruleset: Ruleset, packet: Packet) -> Admission:
    """Returns the ports that a packet reaches through all chains of its path.

    Raises:
        TooManyRulesError: there are too many rules.
    """
    flow = Admission(ALL_PORTS, 0, ALL_PORTS, 0)
    budget = [_MAX_STEPS]
    for chain in path_of(ruleset, packet):
        is_tracked = chain.hook not in _EARLY_HOOKS or (chain.hook == "prerouting" and chain.priority > _TRACKING)
        walk = _Walk(ruleset, chain, replace(packet, is_tracked=is_tracked), budget)
        flow = walk.after(flow)
    if ruleset.missing:  # chains that were not read can only close more
        flow = replace(flow, certain=0, possible=flow.certain | flow.possible)
    return flow


def path_of(ruleset: Ruleset, packet: Packet) -> list[BaseChain]:
    """Returns the base chains that a packet passes, in their order."""
    hooks = _HOOKS[packet.hook]
    chains = [
        chain
        for chain in ruleset.base_chains
        if chain.hook in hooks
        and packet.family in chain.families
        and (not chain.devices or packet.iif is None or packet.iif in chain.devices)
    ]
    return sorted(chains, key=lambda chain: (hooks.index(chain.hook), chain.priority))


def can_close(ruleset: Ruleset, hook: str) -> bool:
    """Returns whether a rule or policy on the path to a hook drops or rejects anything; dead rules do not."""
    chains = [chain for chain in ruleset.base_chains if chain.hook in _HOOKS[hook] and chain.is_certain]
    return any(_closes(ruleset, chain) for chain in chains)


def _closes(ruleset: Ruleset, chain: BaseChain) -> bool:
    seen: set[str] = set()

    def follow(name: str, depth: int) -> tuple[bool, bool]:
        """Returns whether the chain closes, and whether packets come to its end."""
        seen.add(name)
        for rule in ruleset.rules.get((chain.table, name), ()):
            if _is_never(rule):
                continue
            if rule.verdict in _CLOSING:
                return True, True
            comes_back = True
            if rule.target and rule.target not in seen and depth < _MAX_DEPTH:
                closes, comes_back = follow(rule.target, depth + 1)
                if closes:
                    return True, True
            is_final = rule.verdict in {"accept", "return", "goto"} or (rule.target and not comes_back)
            if is_final and not rule.conditions:
                return False, rule.verdict == "return" or (rule.verdict == "goto" and comes_back)
        return False, True

    closes, comes_to_end = follow(chain.name, 0)
    return closes or (comes_to_end and chain.policy in _CLOSING)


def _is_never(rule: Rule) -> bool:
    packet = Packet("input", "ip", "tcp", None)
    return any(c.chance_for(packet).match is Can.NO for c in rule.conditions if c.field in {"chance", "ct", "state"})


class _Flow(NamedTuple):
    """The ports of the packets that come to a place, as bit masks: certainly, and possibly."""

    certain: int = 0
    possible: int = 0

    def hit(self, ports: int, match: Can) -> "_Flow":
        """Returns the packets that meet a condition."""
        if match is Can.YES:
            return _Flow(self.certain & ports, self.possible & ports)
        return _Flow(0, (self.certain | self.possible) & ports)

    def left(self, ports: int, avoid: Can, came_back: "_Flow") -> "_Flow":
        """Returns the packets that go on after a rule: those that avoid it, and those that come back from its chain."""
        if avoid is Can.YES:
            return self
        certain, possible = self.certain & ~ports, self.possible & ~ports
        if avoid is Can.NO:
            return _Flow(certain | came_back.certain, possible | came_back.possible)
        return _Flow(certain, self.possible | (self.certain & ports))

    def merged(self, other: "_Flow") -> "_Flow":
        """Returns the packets of both."""
        certain = self.certain | other.certain
        return _Flow(certain, (self.possible | other.possible) & ~certain)


@dataclass(slots=True)
class _Walk:
    ruleset: Ruleset
    chain: BaseChain
    packet: Packet
    budget: list[int]  # one number, shared by the chains of a path
    certain: int = 0
    possible: int = 0
    unnamed: int = 0
    closed: int = 0
    rejected: int = 0
    readdressed: int = 0

    def after(self, flow: Admission) -> Admission:
        """Returns what is left of the packets that come to the chain."""
        named = ALL_PORTS & ~flow.unnamed
        rest = self._follow(self.chain.name, _Flow(flow.certain, flow.possible), named, 0)
        self._apply(self.chain.policy, rest, named)
        # All ways of such a packet end in accept, even if it is not known which way it takes.
        sure = (self.certain | (self.possible & ~self.closed)) & flow.certain
        possible = (self.possible | self.certain) & ~sure
        # Ports change where addresses are translated, so that an early verdict may be about another port.
        is_early = self.chain.hook in _EARLY_HOOKS
        if not self.chain.is_certain or (self.ruleset.redirects and is_early):
            possible = (flow.certain | flow.possible) & ~sure
            self.unnamed |= flow.unnamed
        rejected = (flow.rejected | self.rejected) & ALL_PORTS
        readdressed = flow.readdressed | (self.readdressed if is_early else 0)
        return Admission(sure, possible, self.unnamed & (sure | possible), rejected, readdressed)

    def _follow(self, name: str, flow: _Flow, named: int, depth: int) -> _Flow:
        """Follows a chain with packets; returns those that come back to its caller."""
        if depth > _MAX_DEPTH:
            raise TooManyRulesError("the rules cannot be followed: too many nested chains")
        back = _Flow()
        for rule in self.ruleset.rules.get((self.chain.table, name), ()):
            if not any(flow):
                break
            self.budget[0] -= 1
            if self.budget[0] < 0:
                raise TooManyRulesError("the rules cannot be followed: too many of them")
            ports, is_named, chance = self._match(rule)
            if chance.match is Can.NO or not ports:
                continue
            hit = flow.hit(ports, chance.match)
            if rule.readdresses or (rule.verdict == "unknown" and self.chain.kind == "nat"):
                self.readdressed |= hit.certain | hit.possible
            if not rule.verdict:
                continue
            came_back = hit if rule.verdict == "return" else _Flow()
            if rule.target:
                came_back = self._follow(rule.target, hit, named | ports if is_named else named, depth + 1)
            elif rule.verdict != "return":
                self._apply(rule.verdict, hit, named | ports if is_named else named)
            if rule.verdict in {"return", "goto"}:
                back, came_back = back.merged(came_back), _Flow()
            elif rule.verdict == "unknown":  # the packets may also go on
                came_back = _Flow(0, hit.certain | hit.possible)
            flow = flow.left(ports, chance.avoid, came_back)
        return back.merged(flow)

    def _match(self, rule: Rule) -> tuple[int, bool, Chance]:
        """Returns the ports that a rule is about, whether it names them, and the chance of its other conditions."""
        ports, match, avoid, is_named = ALL_PORTS, Can.YES, Can.NO, False
        for condition in rule.conditions:
            if condition.field == "dport":
                mask = mask_of(condition.ranges)
                ports &= ~mask if condition.is_negated else mask
                is_named = True
                continue
            chance = condition.chance_for(self.packet)
            if chance.match is Can.NO:
                return 0, False, chance
            match, avoid = min(match, chance.match), max(avoid, chance.avoid)
        return ports, is_named and ports.bit_count() <= WIDE, Chance(match, avoid) if rule.conditions else ALWAYS

    def _apply(self, verdict: str, flow: _Flow, named: int) -> None:
        both = flow.certain | flow.possible
        if verdict == "accept":
            self.certain |= flow.certain
            self.possible |= flow.possible
            self.unnamed |= both & ~named
        elif verdict in _CLOSING:
            self.closed |= both
            self.rejected |= both if verdict == "reject" else 0
        else:  # not understood: it may do anything
            self.closed |= both
            self.possible |= both
            self.unnamed |= both & ~named


def most_open(verdicts: Iterable[str]) -> str:
    """Returns the most open of verdicts."""
    found = set(verdicts)
    return next((verdict for verdict in ("accept", "unknown", "reject", "drop") if verdict in found), "unknown")
