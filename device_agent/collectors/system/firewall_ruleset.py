"""A packet filter as data, the same for nftables and iptables: chains of rules with conditions on a packet.

A packet is a class of packets: a new connection to any port of one protocol, from one interface and one source. Ports
are bit masks (bit n is port n). What is neither a port nor a field of the packet is a `Chance`: whether such a packet
can meet the condition, and whether it can avoid it.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from device_agent.host.reading import ReadingGap

Range = tuple[int, int]
"""First and last number of a range of ports, addresses or marks."""

ALL_PORTS: Final = (1 << 65536) - 2  # port 0 is not used
FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "inet": frozenset({"ip", "ip6"}), "ip": frozenset({"ip"}), "ip6": frozenset({"ip6"}),
    "netdev": frozenset({"ip", "ip6"}),
}  # fmt: skip
ADDRESS_BITS: Final[Mapping[str, int]] = {"ip": 32, "ip6": 128}
PROTOCOLS: Final[Mapping[int, str]] = {
    1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 89: "ospf",
    132: "sctp", 136: "udplite",
}  # fmt: skip
# Both notations of the same protocols.
_PROTOCOL_NAMES: Final[Mapping[str, str]] = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "ospfigp": "ospf"}
_KNOWN_PROTOCOLS: Final = frozenset(
    {*PROTOCOLS.values(), "comp", "ipcomp", "vrrp", "pim", "ipip", "l2tp", "eigrp", "all"}
)
# The flags of packets that begin a connection with Linux: SYN alone, with ECN, or with PSH and URG.
FIRST_FLAGS: Final = (0x02, 0xC2, 0x0A, 0x2A)
_MAX_CACHED_RANGES: Final = 64


class Can(IntEnum):
    """Whether a packet can do something."""

    NO = 0
    UNKNOWN = 1
    YES = 2


class Chance(NamedTuple):
    """Whether a packet can meet a condition, and whether it can avoid it."""

    match: Can
    avoid: Can

    def negated(self) -> "Chance":
        """Returns the chance of the opposite condition."""
        return Chance(self.avoid, self.match)


ALWAYS: Final = Chance(Can.YES, Can.NO)
NEVER: Final = Chance(Can.NO, Can.YES)
CHOSEN: Final = Chance(Can.YES, Can.YES)  # the sender decides, such as about its port, or by sending slowly
UNCLEAR: Final = Chance(Can.UNKNOWN, Can.UNKNOWN)
LISTED_LATER: Final = Chance(Can.UNKNOWN, Can.YES)  # whoever is in a set that packets change


@dataclass(frozen=True, slots=True)
class Packet:
    """A new connection of a protocol over an interface.

    `iif` and `oif` are None if unknown, and `source` and `target` too; for TCP it is the first packet (SYN).
    """

    hook: str
    family: str
    protocol: str
    iif: str | None
    oif: str | None = None
    source: int | None = None
    target: int | None = None
    source_port: int | None = None
    is_tracked: bool = True  # False before connection tracking has seen it


@dataclass(frozen=True, slots=True)
class Condition:
    """A field and the values it must have, or must not have.

    Fields: `iif`, `oif` (names, `*` at the end for any rest), `family`, `protocol`, `target_type`, `state` (names);
    `sport`, `dport`, `saddr`, `daddr` (ranges, addresses of `family`); `ct` for others of a tracked connection, which
    are not met without one; `chance` for all others.
    """

    field: str
    names: frozenset[str] = frozenset()
    ranges: tuple[Range, ...] = ()
    family: str = ""
    chance: Chance = ALWAYS
    is_negated: bool = False

    def chance_for(self, packet: Packet) -> Chance:
        """Returns the chance of a packet; the condition is not about its port of destination."""
        if self.field == "ct" and not packet.is_tracked:
            return NEVER
        chance = self._chance_for(packet)
        return chance.negated() if self.is_negated else chance

    def _chance_for(self, packet: Packet) -> Chance:
        if self.field in {"chance", "ct"}:
            return self.chance
        if self.field in {"iif", "oif"}:
            return _interface_chance(self.names, packet.iif if self.field == "iif" else packet.oif)
        if self.field in {"saddr", "daddr", "sport"}:
            return self._number_chance(packet)
        value = {
            "family": packet.family,
            "protocol": packet.protocol,
            "target_type": "local" if packet.hook == "input" else "unicast",
            "state": "new" if packet.is_tracked else "invalid",
        }[self.field]
        return ALWAYS if value in self.names else NEVER

    def _number_chance(self, packet: Packet) -> Chance:
        if self.field == "sport":
            number, last = packet.source_port, 0xFFFF
        else:
            number = packet.source if self.field == "saddr" else packet.target
            last = (1 << ADDRESS_BITS[self.family]) - 1
        if number is not None:
            return ALWAYS if any(low <= number <= high for low, high in self.ranges) else NEVER
        if self.field == "sport":
            return CHOSEN
        return ALWAYS if (0, last) in self.ranges else UNCLEAR


def _interface_chance(patterns: frozenset[str], name: str | None) -> Chance:
    if "*" in patterns:
        return ALWAYS
    if name is None:
        return UNCLEAR if patterns - {"lo"} else NEVER
    is_met = any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)
    return ALWAYS if is_met else NEVER


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to packets that meet all conditions.

    `verdict` is accept, drop, reject, return, jump, goto, `unknown`, or empty for none; `target` is the chain to go to.
    `readdresses`: the packets go to another address or socket, past the rules for this one.
    """

    conditions: tuple[Condition, ...] = ()
    verdict: str = ""
    target: str = ""
    source: str = ""
    readdresses: bool = False


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain attached to a hook; `device` limits it to interfaces (family netdev); `kind` is filter, nat or route.

    `is_certain` is False where it is not known whether the chain is in force.
    """

    families: frozenset[str]
    table: str
    name: str
    hook: str
    priority: int
    policy: str
    devices: frozenset[str] = frozenset()
    is_certain: bool = True
    kind: str = "filter"


@dataclass(slots=True)
class Ruleset:
    """The chains in force: the base chains, the rules of every chain by table and name, and what was not understood.

    `redirects`: a rule changes the port or address that packets go to. `needs_text`: this form of the listing leaves
    out something that its text says. `gaps` may hide any verdict; `missing` are chains that may exist besides, which
    can only close more.
    """

    base_chains: list[BaseChain] = field(default_factory=list)
    rules: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)
    count: int = 0
    redirects: bool = False
    needs_text: bool = False
    gaps: list[ReadingGap] = field(default_factory=list)
    missing: list[ReadingGap] = field(default_factory=list)

    def extend(self, other: "Ruleset") -> None:
        """Adds the chains of another program's rule set."""
        self.base_chains += other.base_chains
        for key, rules in other.rules.items():
            self.rules.setdefault(key, []).extend(rules)
        self.count += other.count
        self.redirects |= other.redirects
        self.gaps += other.gaps
        self.missing += other.missing

    def without(self, tables: Iterable[str]) -> "Ruleset":
        """Returns the rule set without some tables."""
        left = frozenset(tables)
        rules = {key: rules for key, rules in self.rules.items() if key[0] not in left}
        chains = [chain for chain in self.base_chains if chain.table not in left]
        removed = sum(len(rules) for key, rules in self.rules.items() if key[0] in left)
        gaps = [gap for gap in self.gaps if not any(gap.source.startswith(f"{table} ") for table in left)]
        return Ruleset(chains, rules, max(0, self.count - removed), self.redirects, gaps=gaps, missing=self.missing)

    def conditions(self) -> Iterable[Condition]:
        """Returns every condition."""
        return (condition for rules in self.rules.values() for rule in rules for condition in rule.conditions)


_MASKS: dict[tuple[Range, ...], int] = {}


def mask_of(ranges: tuple[Range, ...]) -> int:
    """Returns the bit mask of ports; the masks of some are kept, each takes up to 8 KiB."""
    mask = _MASKS.get(ranges)
    if mask is None:
        mask = 0
        for low, high in ranges:
            mask |= (1 << (min(high, 0xFFFF) + 1)) - (1 << min(max(low, 0), 0x10000)) if low <= high else 0
        mask &= ALL_PORTS
        if len(_MASKS) >= _MAX_CACHED_RANGES:
            _MASKS.clear()
        _MASKS[ranges] = mask
    return mask


def protocol_name(text: str) -> str:
    """Returns the name of a protocol given by number or name.

    Raises:
        ValueError: the protocol is not known.
    """
    lower = text.lower()
    is_number = lower.isdecimal() and len(lower) < 4
    name = PROTOCOLS.get(int(lower), lower) if is_number else _PROTOCOL_NAMES.get(lower, lower)
    if name not in _KNOWN_PROTOCOLS and not is_number:
        raise ValueError(f"the protocol {name[:32]}")
    return name


def network_range(text: str) -> tuple[str, Range]:
    """Returns the family and the range of an address or prefix, such as `192.0.2.0/24` or `2001:db8::1`.

    Raises:
        ValueError: it is neither.
    """
    network = ipaddress.ip_network(text, strict=False)
    family = "ip" if network.version == 4 else "ip6"
    return family, (int(network.network_address), int(network.broadcast_address))
