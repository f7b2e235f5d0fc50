"""The matches of iptables rules as conditions. [iptables-extensions(8)]"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from device_agent.collectors.system.firewall_ruleset import (
    ADDRESS_BITS,
    ALWAYS,
    CHOSEN,
    FIRST_FLAGS,
    NEVER,
    UNCLEAR,
    Chance,
    Condition,
    Range,
    network_range,
    protocol_name,
)

_FLAGS: Final = {
    "FIN": 1,
    "SYN": 2,
    "RST": 4,
    "PSH": 8,
    "ACK": 16,
    "URG": 32,
    "ECE": 64,
    "CWR": 128,
    "NONE": 0,
    "ALL": 63,
}
# Options of which the sender decides whether they match, and the number of their values.
CHOSEN_OPTIONS: Final[Mapping[str, int]] = {
    "--limit": 1, "--hashlimit-upto": 1, "--hashlimit-above": 1, "--hashlimit": 1, "--connlimit-above": 1,
    "--connlimit-upto": 1, "--length": 1, "--ttl-eq": 1, "--ttl-lt": 1, "--ttl-gt": 1, "--hl-eq": 1, "--hl-lt": 1,
    "--hl-gt": 1, "--dscp": 1, "--tos": 2, "--probability": 1, "--every": 1, "--mss": 1, "--tcp-option": 1,
    "--rt-type": 1,
    "--timestart": 1, "--timestop": 1, "--weekdays": 1, "--quota": 1, "-f": 0, "--fragment": 0, "--rttl": 0,
}  # fmt: skip
# Options that only say more about others, and the number of their values.
DETAILS: Final[Mapping[str, int]] = {
    "-m": 1, "--match": 1, "--comment": 1, "--limit-burst": 1, "--hashlimit-burst": 1, "--hashlimit-mode": 1,
    "--hashlimit-name": 1, "--hashlimit-srcmask": 1, "--hashlimit-dstmask": 1, "--hashlimit-htable-expire": 1,
    "--hashlimit-htable-size": 1, "--hashlimit-htable-max": 1, "--hashlimit-htable-gcinterval": 1,
    "--connlimit-mask": 1,
    "--connlimit-saddr": 0, "--connlimit-daddr": 0, "--mode": 1, "--packet": 1, "--seconds": 1, "--hitcount": 1,
    "--name": 1, "--rsource": 0, "--rdest": 0, "--mask": 1, "--reap": 0, "--set": 0, "--kerneltz": 0,
    "--loose": 0, "--validmark": 0,
    "--accept-local": 0, "--datestart": 1,
    "-c": 2, "--set-counters": 2,
}  # fmt: skip
_ADDRESS_TYPES: Final = frozenset(
    {
        "unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit",
        "throw", "nat", "xresolve",
    }
)  # fmt: skip
_STATES: Final = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "DNAT", "SNAT"})


@dataclass(frozen=True, slots=True)
class MatchContext:
    """The family of a rule, and what its conditions depend on elsewhere in the rule set."""

    family: str
    untracks: bool
    marks: bool
    redirects_widely: bool  # without naming the ports of destination


def flags_chance(mask: str, wanted: str) -> Chance:
    """Returns whether the first packet of a connection has the flags `wanted` among those of `mask`.

    Raises:
        ValueError: an unknown flag.
    """
    bits, value = _flag_bits(mask), _flag_bits(wanted)
    met = {flags & bits == value for flags in FIRST_FLAGS}
    return CHOSEN if len(met) > 1 else ALWAYS if met == {True} else NEVER


def _flag_bits(text: str) -> int:
    bits = 0
    for name in text.split(","):
        if name not in _FLAGS:
            raise ValueError(name)
        bits |= _FLAGS[name]
    return bits


def _protocol(value: str, _: MatchContext) -> Condition:
    name = protocol_name(value)
    if name in {"all", "0"}:
        return Condition("chance", chance=ALWAYS)
    return Condition("protocol", frozenset({name}))


def _interface(field_name: str) -> Callable[[str, MatchContext], Condition]:
    def read(value: str, _: MatchContext) -> Condition:
        return Condition(field_name, frozenset({f"{value[:-1]}*" if value.endswith("+") else value}))

    return read


def _addresses(field_name: str) -> Callable[[str, MatchContext], Condition]:
    def read(value: str, context: MatchContext) -> Condition:
        family, range_ = _network(value, context.family)
        return Condition(field_name, ranges=(range_,), family=family)

    return read


def _network(value: str, family: str) -> tuple[str, Range]:
    address, _, mask = value.partition("/")
    if "." in mask or (":" in mask):
        number = int(ipaddress.ip_address(mask))
        bits = ADDRESS_BITS[family]
        inverted = ((1 << bits) - 1) ^ number
        if inverted & (inverted + 1):
            raise ValueError(f"a mask with holes: {mask}")
        value = f"{address}/{bits - inverted.bit_length()}"
    found, range_ = network_range(value)
    if found != family:
        raise ValueError(f"an address of another family: {value}")
    return found, range_


def _address_range(field_name: str) -> Callable[[str, MatchContext], Condition]:
    def read(value: str, context: MatchContext) -> Condition:
        low, _, high = value.partition("-")
        ends = ipaddress.ip_address(low), ipaddress.ip_address(high or low)
        return Condition(field_name, ranges=((int(ends[0]), int(ends[1])),), family=context.family)

    return read


def _ports(field_name: str) -> Callable[[str, MatchContext], Condition]:
    def read(value: str, _: MatchContext) -> Condition:
        ranges = []
        for part in value.split(","):
            low, colon, high = part.partition(":")
            ends = (low or "0", high or "65535") if colon else (low, low)
            if not all(end.isdecimal() and len(end) < 6 for end in ends):
                raise ValueError(part)
            ranges.append((int(ends[0]), int(ends[1])))
        return Condition(field_name, ranges=tuple(ranges))

    return read


def _states(value: str, context: MatchContext) -> Condition:
    names = frozenset(value.split(","))
    if not names <= _STATES or (context.redirects_widely and "DNAT" in names and "NEW" not in names):
        raise ValueError(value)
    if context.untracks and names & {"NEW", "UNTRACKED"} and not {"NEW", "UNTRACKED"} <= names:
        return Condition("chance", chance=UNCLEAR)
    return Condition("state", frozenset(name.lower() for name in names))


def _status(value: str, _: MatchContext) -> Condition:
    _among(value, frozenset({"expected", "seen_reply", "assured", "confirmed"}))
    return Condition("ct", chance=NEVER)


def _direction(value: str, _: MatchContext) -> Condition:
    directions = _among(value, frozenset({"original", "reply"}))
    return Condition("ct", chance=ALWAYS if "original" in directions else NEVER)


def _among(value: str, known: frozenset[str]) -> frozenset[str]:
    """Returns the words of a list.

    Raises:
        ValueError: one of them is not known.
    """
    names = frozenset(value.lower().split(","))
    if not names <= known:
        raise ValueError(value)
    return names


def _mark(value: str, context: MatchContext) -> Condition:
    if context.marks:
        return Condition("chance", chance=UNCLEAR)
    return Condition("chance", chance=ALWAYS if int(value.partition("/")[0], 0) == 0 else NEVER)


def _target_type(value: str, _: MatchContext) -> Condition:
    return Condition("target_type", _among(value, _ADDRESS_TYPES))


def _source_type(value: str, _: MatchContext) -> Condition:
    return Condition("chance", chance=ALWAYS if "unicast" in _among(value, _ADDRESS_TYPES) else NEVER)


def _packet_type(value: str, _: MatchContext) -> Condition:
    kinds = _among(value, frozenset({"unicast", "host", "broadcast", "multicast"}))
    return Condition("chance", chance=ALWAYS if kinds & {"unicast", "host"} else NEVER)


def _never(_value: str, _: MatchContext) -> Condition:
    return Condition("chance", chance=NEVER)


def _policy(value: str, _: MatchContext) -> Condition:
    return Condition("chance", chance=ALWAYS if "none" in _among(value, frozenset({"none", "ipsec"})) else NEVER)


def _always(_value: str, _: MatchContext) -> Condition:
    return Condition("chance", chance=ALWAYS)


READERS: Final[Mapping[str, Callable[[str, MatchContext], Condition]]] = {
    "-p": _protocol, "--protocol": _protocol, "-i": _interface("iif"), "-o": _interface("oif"),
    "-s": _addresses("saddr"), "-d": _addresses("daddr"), "--src-range": _address_range("saddr"),
    "--dst-range": _address_range("daddr"), "--dport": _ports("dport"), "--dports": _ports("dport"),
    "--sport": _ports("sport"), "--sports": _ports("sport"), "--state": _states, "--ctstate": _states,
    "--ctstatus": _status, "--ctdir": _direction, "--mark": _mark, "--dst-type": _target_type,
    "--src-type": _source_type, "--pkt-type": _packet_type, "--mac-source": _never, "--pol": _policy, "--dir": _always,
    "--icmp-type": _always, "--icmpv6-type": _always, "--vaddr": _always,
}  # fmt: skip
