"""The packets for which a rule set is evaluated: from strangers, over the interfaces that lead outside.

A stranger has a public address that no rule singles out: of all sources that rules treat alike, those with more than
1/256 of the public addresses count. A rule for one network, or for an interface without a route to everywhere, admits
only whom it names.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from device_agent.collectors.system.firewall_ruleset import (
    ADDRESS_BITS,
    Condition,
    Packet,
    Range,
    Ruleset,
    network_range,
)

_PUBLIC: Final = {"ip": (0, (1 << 32) - 1), "ip6": network_range("2000::/3")[1]}
_NOT_PUBLIC: Final = {
    "ip": tuple(
        network_range(text)[1]
        for text in (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.168.0.0/16", "224.0.0.0/3"),
        )
    ),
    "ip6": (),
}  # fmt: skip
_SMALLEST_SHARE: Final = 256
_MAX_SOURCE_PORTS: Final = 16  # groups of source ports that are tried
_MAX_PACKETS: Final = 512


@dataclass(frozen=True, slots=True)
class Host:
    """The interfaces that lead outside, all interfaces but loopback, and the own addresses, by family."""

    outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ()
    addresses: dict[str, tuple[int, ...]] = field(default_factory=dict)


def packets(
    ruleset: Ruleset, host: Host, hook: str, families: Iterable[str], protocols: tuple[str, ...] = ("tcp", "udp")
) -> Iterator[Packet]:
    """Returns the packets to evaluate at a hook, a limited number of them.

    Raises:
        ValueError: too many would be needed.
    """
    conditions = list(ruleset.conditions())
    found = []
    for family in sorted(families):
        strangers = stranger_addresses(conditions, family)
        own: tuple[int | None, ...] = host.addresses.get(family, ()) or (None,)
        outside: tuple[str | None, ...] = host.outside.get(family, ()) or (None,)
        if not any(condition.field == "daddr" for condition in conditions):
            own = own[:1]
        ports = _source_ports(conditions)
        inside: tuple[str | None, ...] = host.interfaces or (None,)
        ways: dict[str, tuple[tuple[str | None, ...], ...]] = {
            "input": (outside, (None,)), "forward": (outside, inside), "output": ((None,), outside),
        }  # fmt: skip
        sources = own if hook == "output" else strangers
        targets = own if hook == "input" else strangers
        for protocol in protocols:
            for source, target, port, (iif, oif) in product(sources, targets, ports, list(product(*ways[hook]))):
                found.append(Packet(hook, family, protocol, iif, oif, source, target, port))
                if len(found) > _MAX_PACKETS:
                    raise ValueError("the rules distinguish too many kinds of packets")
    return iter(found)


def stranger_addresses(conditions: Iterable[Condition], family: str) -> list[int]:
    """Returns an address of each large group of public addresses that the conditions treat alike."""
    ranges = {c.ranges for c in conditions if c.field in {"saddr", "daddr"} and c.family == family}
    low, high = _PUBLIC[family]
    groups = _groups([*ranges, _NOT_PUBLIC[family]], low, high)
    excluded = 1 << len(ranges)
    smallest = (high - low + 1) // _SMALLEST_SHARE
    found = [address for key, (size, address) in groups.items() if not key & excluded and size > smallest]
    return found or [low + (1 << 24) + 1]


def _groups(sets: list[tuple[Range, ...]], low: int, high: int) -> dict[int, tuple[int, int]]:
    """Returns the size and one number of each group, by the bit mask of the sets that contain it."""
    changes: dict[int, int] = {}
    for number, ranges in enumerate(sets):
        for first, last in _merged(ranges):
            for at in (first, last + 1):
                changes[at] = changes.get(at, 0) ^ (1 << number)
    groups: dict[int, tuple[int, int]] = {}
    key, begin = 0, low
    largest: dict[int, int] = {}
    for at in [*sorted(changes), high + 1]:
        end = min(at, high + 1)
        if end > begin:
            size, address = groups.get(key, (0, 0))
            if end - begin > largest.get(key, 0):
                largest[key], address = end - begin, begin + (end - begin) // 2
            groups[key] = (size + end - begin, address)
            begin = end
        key ^= changes.get(at, 0)
    return groups


def _merged(ranges: tuple[Range, ...]) -> list[Range]:
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        elif low <= high:
            merged.append((low, high))
    return merged


def _source_ports(conditions: list[Condition]) -> list[int | None]:
    sets = list({condition.ranges for condition in conditions if condition.field == "sport"})
    if not sets or len(sets) > _MAX_SOURCE_PORTS:
        return [None]
    groups = _groups(sets, 1, 0xFFFF)
    return [port for _, port in groups.values()] if len(groups) <= _MAX_SOURCE_PORTS else [None]


def number_of(address: str) -> tuple[str, int]:
    """Returns the family and the number of an address.

    Raises:
        ValueError: it is none.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return ("ip" if parsed.max_prefixlen == ADDRESS_BITS["ip"] else "ip6"), int(parsed)
