"""The conditions of nftables rules, from the expressions of `nft -j`. [libnftables-json(5), nft(8)]"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from device_agent.collectors.system.firewall_ruleset import (
    ADDRESS_BITS,
    ALWAYS,
    CHOSEN,
    FIRST_FLAGS,
    LISTED_LATER,
    NEVER,
    UNCLEAR,
    Can,
    Chance,
    Condition,
    Range,
    network_range,
    protocol_name,
)

Conditions = tuple[Condition, ...]

_TRANSPORT: Final = frozenset({"tcp", "udp", "th", "dccp", "sctp", "udplite"})
_OTHER_HEADERS: Final = frozenset({"icmp", "icmpv6", "igmp", "esp", "ah", "comp", "gre"})
_FAMILY_NAMES: Final = {"ipv4": "ip", "ipv6": "ip6", "ip": "ip", "ip6": "ip6", "2": "ip", "10": "ip6"}
_LAYER_3: Final = frozenset({"ip", "ip6", "arp", "vlan", "8021q", "8021ad", "ipx"})
_CHOSEN_META: Final = frozenset({"length", "hour", "day", "time", "cpu", "random"})
_CT_NAMES: Final = frozenset(
    {
        "invalid", "established", "related", "new", "untracked", "expected", "seen-reply", "assured", "confirmed",
        "snat", "dnat", "dying",
    }
)  # fmt: skip
_PACKET_TYPES: Final = frozenset({"host", "unicast", "broadcast", "multicast", "other", "0", "1", "2", "3"})
_FLAGS: Final = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_ROUTE_TYPES: Final = ("local", "unicast", "broadcast", "multicast", "anycast", "blackhole", "unreachable", "prohibit")
# What rules ask of by position: header, first bit, number of bits.
_RAW: Final[Mapping[tuple[str, int, int], tuple[str, str]]] = {
    ("th", 0, 16): ("th", "sport"), ("th", 16, 16): ("th", "dport"),
    ("nh", 96, 32): ("ip", "saddr"), ("nh", 128, 32): ("ip", "daddr"),
    ("nh", 64, 128): ("ip6", "saddr"), ("nh", 192, 128): ("ip6", "daddr"),
}  # fmt: skip


class NotUnderstoodError(ValueError):
    """An expression that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the conditions of a table depend on: its sets, and what rules do elsewhere in the whole rule set.

    `redirects_widely`: a rule redirects packets without naming their ports.
    """

    sets: Mapping[str, list[Any]] = field(default_factory=dict)
    changed_sets: frozenset[str] = frozenset()
    untracks: bool = False
    marks: bool = False
    redirects: bool = False
    redirects_widely: bool = False


def match_conditions(left: Any, op: str, right: Any, context: Context) -> list[Conditions]:
    """Returns alternatives, each a conjunction of conditions, of a match expression.

    Raises:
        NotUnderstoodError: it cannot be expressed as conditions.
    """
    if not isinstance(left, dict) or len(left) != 1:
        raise NotUnderstoodError("a match of an unknown form")
    kind, value = next(iter(left.items()))
    if kind == "concat":
        return _concatenation(value, op, right, context)
    name = right[1:] if isinstance(right, str) and right.startswith("@") else ""
    elements = elements_of(right, context)
    if isinstance(right, list) and op != "in" and kind in {"payload", "&"}:
        elements = [{"|": right}]  # the bits of one value
    if name in context.changed_sets:
        # Who is in the set now is in it for good or not; who is not may be added.
        return [(Condition("chance", chance=LISTED_LATER if op != "!=" else LISTED_LATER.negated()),)]
    return [simple_conditions(kind, value, op, elements, context)]


def elements_of(right: Any, context: Context) -> list[Any]:
    """Returns the values of the right side of a match; a named set gives its elements."""
    if isinstance(right, str) and right.startswith("@"):
        if right[1:] not in context.sets:
            raise NotUnderstoodError(f"the set {right} is not listed")
        values = context.sets[right[1:]]
    elif isinstance(right, dict) and "set" in right:
        values = right["set"]
    else:
        values = right
    values = values if isinstance(values, list) else [values]
    return [_without_options(value) for value in values]


def _without_options(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("elem"), dict):
        return value["elem"].get("val")
    return value


def _concatenation(parts: Any, op: str, right: Any, context: Context) -> list[Conditions]:
    elements = elements_of(right, context)
    if isinstance(right, str) and right[1:] in context.changed_sets:
        return [(Condition("chance", chance=LISTED_LATER if op != "!=" else LISTED_LATER.negated()),)]
    if op not in {"==", "in"} or not isinstance(parts, list):
        raise NotUnderstoodError("a negated concatenation")
    return [concatenated(parts, element, context) for element in elements]


def concatenated(parts: list[Any], element: Any, context: Context) -> Conditions:
    """Returns the conditions of one element of a set of concatenations."""
    values = element.get("concat") if isinstance(element, dict) else None
    if not isinstance(values, list) or len(values) != len(parts):
        raise NotUnderstoodError("an element that does not fit its concatenation")
    conditions: list[Condition] = []
    for part, value in zip(parts, values, strict=True):
        for alternative in match_conditions(part, "==", {"set": [value]}, context):
            conditions += alternative
    return tuple(conditions)


def simple_conditions(kind: str, value: Any, op: str, elements: list[Any], context: Context) -> Conditions:
    """Returns the conditions that a field of a packet is, or is not, among elements."""
    if op not in {"==", "in", "!=", "<", ">", "<=", ">=", "!"}:
        raise NotUnderstoodError(f"the operator {op}")
    if "*" in elements and kind != "meta":
        return () if op in {"==", "in"} else (Condition("chance", chance=NEVER),)
    if kind in {"tcp option", "ip option", "exthdr", "sctp chunk", "dccp option"}:
        return (*_protocol(kind.split(maxsplit=1)[0]), Condition("chance", chance=CHOSEN))
    if kind in {"numgen", "jhash", "symhash", "osf"}:
        return (Condition("chance", chance=CHOSEN),)
    reader = _KINDS.get(kind)
    if reader is None:
        raise NotUnderstoodError(f"a match of {kind}")
    return reader(value, op, elements, context)


def _protocol(name: str) -> Conditions:
    return (Condition("protocol", frozenset({name})),) if name in {"tcp", "udp", "sctp", "dccp", "udplite"} else ()


def _payload(value: Any, op: str, elements: list[Any], _: Context) -> Conditions:
    if not isinstance(value, dict):
        raise NotUnderstoodError("a payload of an unknown form")
    protocol, name = str(value.get("protocol")), str(value.get("field"))
    if "base" in value:
        place = (str(value.get("base")), value.get("offset"), value.get("len"))
        protocol, name = next((field for key, field in _RAW.items() if key == place), ("", ""))
        if not protocol:
            raise NotUnderstoodError("bits of a packet by their position")
    if protocol in {"ip", "ip6"}:
        return (Condition("family", frozenset({protocol})), *_ip_conditions(protocol, name, op, elements))
    if protocol in _TRANSPORT:
        return (*_protocol(protocol), _transport_condition(protocol, name, op, elements))
    if protocol in _OTHER_HEADERS:
        return (Condition("protocol", frozenset({protocol})), Condition("chance", chance=CHOSEN))
    if protocol == "ether" and name == "saddr" and op in {"==", "!=", "in"}:
        return (Condition("chance", chance=NEVER, is_negated=op == "!="),)  # strangers have another address
    if protocol == "ether" and name == "type":
        return (_named("family", op, elements, _family),)
    raise NotUnderstoodError(f"a match of {protocol} {name}")


def _transport_condition(protocol: str, name: str, op: str, elements: list[Any]) -> Condition:
    if name in {"dport", "sport"}:
        return Condition(name, ranges=_compared(op, elements, 0xFFFF, _number), is_negated=op == "!=")
    if (protocol, name) == ("tcp", "flags"):
        return Condition("chance", chance=_flags_chance(0xFF, op, elements))
    return Condition("chance", chance=CHOSEN)


def _ip_conditions(family: str, name: str, op: str, elements: list[Any]) -> Conditions:
    if name in {"saddr", "daddr"}:
        ranges = _address_ranges(op, elements, family)
        return (Condition(name, ranges=ranges, family=family, is_negated=op == "!="),)
    if name == "protocol":
        return (_named("protocol", op, elements, protocol_name),)
    if name == "nexthdr" and op in {"==", "in"}:
        # An extension header before that of the protocol avoids the match.
        header = Condition("chance", chance=Chance(Can.YES, Can.UNKNOWN))
        return (_named("protocol", op, elements, protocol_name), header)
    if name == "nexthdr":
        raise NotUnderstoodError("a negated ip6 nexthdr")
    return (Condition("chance", chance=CHOSEN),)


def _meta(value: Any, op: str, elements: list[Any], context: Context) -> Conditions:
    key = str(value.get("key")) if isinstance(value, dict) else ""
    if key in {"iif", "iifname", "oif", "oifname"}:
        return (_named(key[:3], op, elements, str),)
    if "*" in elements:
        return () if op in {"==", "in"} else (Condition("chance", chance=NEVER),)
    if key == "l4proto":
        return (_named("protocol", op, elements, protocol_name),)
    if key in {"nfproto", "protocol"}:
        return (_named("family", op, elements, _family),)
    if key == "mark":
        return (Condition("chance", chance=_mark_chance(op, elements, is_set=context.marks)),)
    if key == "pkttype":
        names = frozenset(str(element) for element in elements)
        if not names <= _PACKET_TYPES:
            raise NotUnderstoodError("a type of packet")
        is_unicast = bool(names & {"host", "unicast", "0"})
        return (Condition("chance", chance=ALWAYS if is_unicast else NEVER, is_negated=op == "!="),)
    if key in _CHOSEN_META:
        return (Condition("chance", chance=CHOSEN),)
    if key in {"secpath", "ipsec"}:
        return (Condition("chance", chance=NEVER if elements == [True] else ALWAYS, is_negated=op == "!="),)
    raise NotUnderstoodError(f"a match of meta {key}")


def _family(text: str) -> str:
    name = _FAMILY_NAMES.get(text, text)
    if name not in _LAYER_3:
        raise ValueError(f"the protocol {name[:32]}")
    return name


def _named(name: str, op: str, elements: list[Any], spell: Callable[[str], str]) -> Condition:
    if op not in {"==", "in", "!="} or not all(isinstance(e, (str, int)) and not isinstance(e, bool) for e in elements):
        raise NotUnderstoodError(f"a comparison of the {name}")
    try:
        return Condition(name, frozenset(spell(str(element)) for element in elements), is_negated=op == "!=")
    except ValueError as e:
        raise NotUnderstoodError(str(e)) from e


def _ct(value: Any, op: str, elements: list[Any], context: Context) -> Conditions:
    key = str(value.get("key")) if isinstance(value, dict) else ""
    names = frozenset(str(element) for element in elements)
    is_negated = op in {"!=", "!"}
    if key in {"state", "status"} and not names <= _CT_NAMES:
        raise NotUnderstoodError(f"a value of ct {key}")
    if key == "state":
        if context.untracks and names & {"new", "untracked"} and not {"new", "untracked"} <= names:
            return (Condition("chance", chance=UNCLEAR),)
        return (Condition("state", names, is_negated=is_negated),)
    if key == "status":
        # Translations of chosen ports admit these ports, by their name.
        chance = UNCLEAR if context.redirects_widely and "dnat" in names else NEVER
    elif key == "direction":
        if not names <= {"original", "reply", "0", "1"}:
            raise NotUnderstoodError("a value of ct direction")
        chance = ALWAYS if names & {"original", "0"} else NEVER
    elif key == "mark":
        return (Condition("ct", chance=_mark_chance(op, elements, is_set=context.marks)),)
    elif key == "helper":
        chance = NEVER
    else:
        return _original(key, value, op, elements, context)
    return (Condition("ct", chance=chance, is_negated=is_negated),)


def _original(key: str, value: dict[str, Any], op: str, elements: list[Any], context: Context) -> Conditions:
    """Returns the conditions on what a connection began with, which is what its first packet has."""
    tracked = Condition("ct", chance=ALWAYS)
    if value.get("dir") == "original" and not context.redirects:
        if key == "proto-dst":
            return (tracked, *_payload({"protocol": "th", "field": "dport"}, op, elements, context))
        protocol, _, name = key.partition(" ")
        if protocol in {"ip", "ip6"} and name in {"saddr", "daddr"}:
            return (tracked, *_payload({"protocol": protocol, "field": name}, op, elements, context))
    raise NotUnderstoodError(f"a match of ct {key}")


def _fib(value: Any, op: str, elements: list[Any], _: Context) -> Conditions:
    value = value if isinstance(value, dict) else {}
    flags = value.get("flags")
    flags = set(flags) if isinstance(flags, list) else {flags}
    is_negated = op == "!="
    names = frozenset(str(element) for element in elements)
    if value.get("result") == "type" and "daddr" in flags and names <= set(_ROUTE_TYPES):
        return (Condition("target_type", names, is_negated=is_negated),)
    if value.get("result") == "type" and "saddr" in flags and names <= set(_ROUTE_TYPES):
        return (Condition("chance", chance=ALWAYS if "unicast" in names else NEVER, is_negated=is_negated),)
    # The way back to a stranger exists: the packet came over an interface with a route to everywhere.
    is_exists = elements in ([True], [False])
    if value.get("result") in {"oif", "oifname"} and "saddr" in flags and (is_exists or elements == [0]):
        return (Condition("chance", chance=ALWAYS if elements == [True] else NEVER, is_negated=is_negated),)
    raise NotUnderstoodError("a match of fib")


def _masked(value: Any, op: str, elements: list[Any], context: Context) -> Conditions:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], dict):
        raise NotUnderstoodError("a mask of an unknown form")
    (kind, inner), mask = next(iter(value[0].items()), ("", None)), value[1]
    inner = inner if isinstance(inner, dict) else {}
    if kind in {"meta", "ct"} and inner.get("key") == "mark":  # a mark that nobody sets is 0, with every mask
        chance = _mark_chance(op, elements, is_set=context.marks)
        return (Condition("ct" if kind == "ct" else "chance", chance=chance),)
    if kind == "payload" and (inner.get("protocol"), inner.get("field")) == ("tcp", "flags"):
        return (*_protocol("tcp"), Condition("chance", chance=_flags_chance(_bits(mask), op, elements)))
    if kind == "ct" and inner.get("key") in {"state", "status"} and elements == [0]:
        flipped = "!=" if op == "==" else "=="
        return _ct(inner, flipped, mask if isinstance(mask, list) else [mask], context)
    raise NotUnderstoodError(f"a mask of {kind}")


_KINDS: Final[Mapping[str, Callable[[Any, str, list[Any], Context], Conditions]]] = {
    "payload": _payload, "meta": _meta, "ct": _ct, "fib": _fib, "&": _masked,
}  # fmt: skip


def _mark_chance(op: str, elements: list[Any], *, is_set: bool) -> Chance:
    if is_set:
        return UNCLEAR
    ranges = _compared(op, elements, 0xFFFFFFFF, _number)
    chance = ALWAYS if any(low <= 0 <= high for low, high in ranges) else NEVER
    return chance.negated() if op == "!=" else chance


def _flags_chance(mask: int, op: str, elements: list[Any]) -> Chance:
    """Returns the chance of the first packet of a connection; the sender chooses between several."""
    wanted = [_bits(element) for element in elements]
    met = set()
    for flags in FIRST_FLAGS:
        masked = flags & mask
        if op == "in":
            met.add(any(masked & bits for bits in [sum(set(wanted))]))
        elif op == "!":
            met.add(not masked & sum(set(wanted)))
        else:
            met.add((masked in wanted) == (op != "!="))
    return CHOSEN if len(met) > 1 else ALWAYS if met == {True} else NEVER


def _bits(value: Any) -> int:
    if isinstance(value, dict) and "|" in value:
        value = value["|"]
    bits = 0
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int):
            bits |= item & 0xFF
        elif isinstance(item, str) and item in _FLAGS:
            bits |= _FLAGS[item]
        else:
            raise NotUnderstoodError("TCP flags of an unknown form")
    return bits


def _compared(op: str, elements: list[Any], last: int, read: Callable[[Any], Range]) -> tuple[Range, ...]:
    ranges = tuple(read(element) for element in elements)
    if op in {"==", "in", "!="}:
        return ranges
    if len(ranges) != 1 or op == "!":
        raise NotUnderstoodError("a comparison with several values")
    value = ranges[0][0]
    return ({"<": (0, value - 1), "<=": (0, value), ">": (value + 1, last), ">=": (value, last)}[op],)


def _number(value: Any) -> Range:
    if isinstance(value, dict) and isinstance(value.get("range"), list) and len(value["range"]) == 2:
        low, high = value["range"]
        return _number(low)[0], _number(high)[0]
    if isinstance(value, str) and value.isascii():
        try:
            value = int(value, 0)
        except ValueError as e:
            raise NotUnderstoodError("a number of an unknown form") from e
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise NotUnderstoodError("a number of an unknown form")
    return value, value


def _address_ranges(op: str, elements: list[Any], family: str) -> tuple[Range, ...]:
    return _compared(op, elements, (1 << ADDRESS_BITS[family]) - 1, lambda value: _address(value, family))


def _address(value: Any, family: str) -> Range:
    try:
        if isinstance(value, dict) and isinstance(value.get("prefix"), dict):
            prefix = value["prefix"]
            found, range_ = network_range(f"{prefix.get('addr')}/{prefix.get('len')}")
        elif isinstance(value, dict) and isinstance(value.get("range"), list) and len(value["range"]) == 2:
            low, high = (ipaddress.ip_address(str(end)) for end in value["range"])
            found, range_ = "ip" if low.version == 4 else "ip6", (int(low), int(high))
        else:
            found, range_ = network_range(str(value))
    except ValueError as e:
        raise NotUnderstoodError("an address of an unknown form") from e
    if found != family:
        raise NotUnderstoodError("an address of another family")
    return range_
