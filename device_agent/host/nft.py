"""The agent's own nftables table, `inet cordon`: read from the kernel, and replaced as a whole."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from device_agent.host.execute import ExecuteError, run

TABLE: Final = "cordon"
MAX_PORTS: Final = 256  # of one list
_CHAIN: Final = "input"
_ABSENT: Final = "No such file or directory"

ProtocolPort = tuple[str, int]
"""Protocol (tcp or udp) and number."""


@dataclass(frozen=True, slots=True)
class NftRules:
    """The rules of the table: `closed` drops what no rule accepts; `allow` and `deny` are ports."""

    closed: bool = False
    allow: frozenset[ProtocolPort] = frozenset()
    deny: frozenset[ProtocolPort] = frozenset()

    def with_allowed(self, ports: frozenset[ProtocolPort]) -> Self:
        """Accepts these ports, and no longer denies them."""
        return replace(self, allow=self.allow | ports, deny=self.deny - ports)

    def with_denied(self, ports: frozenset[ProtocolPort]) -> Self:
        """Denies these ports, and no longer accepts them."""
        return replace(self, deny=self.deny | ports, allow=self.allow - ports)

    def __str__(self) -> str:
        default = "closed" if self.closed else "open"
        return f"{default}, allow {_format_ports(self.allow)}, deny {_format_ports(self.deny)}"


def _format_ports(ports: frozenset[ProtocolPort]) -> str:
    return " ".join(f"{number}/{proto}" for proto, number in sorted(ports)) or "none"


def render_ruleset(rules: NftRules | None) -> str:
    """Returns the script for nft that replaces the table in one transaction, or only deletes it."""
    # Created first, because deleting a missing table is an error.
    lines = [f"table inet {TABLE} {{}}", f"delete table inet {TABLE}"]
    if rules is not None:
        policy = "drop" if rules.closed else "accept"
        lines += [
            f"table inet {TABLE} {{",
            f" chain {_CHAIN} {{",
            f"  type filter hook input priority filter; policy {policy};",
            '  iifname "lo" accept',
            *(f"  {proto} dport {number} drop" for proto, number in sorted(rules.deny)),
            "  ct state established,related accept",
            # IPv6 needs neighbour discovery, and long packets need path MTU messages.
            "  meta l4proto { icmp, ipv6-icmp } accept",
            # Without DHCP the device would lose its address.
            "  udp sport . udp dport { 67 . 68, 547 . 546 } accept",
            *(f"  {proto} dport {number} accept" for proto, number in sorted(rules.allow)),
            " }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def read_table() -> NftRules | None:
    """Returns the rules in the kernel, None without the table.

    Raises:
        ExecuteError: nft is missing or refuses.
        ValueError: the table was not written by this agent.
    """
    result = run(["nft", "-j", "list", "table", "inet", TABLE], ok_statuses=frozenset({0, 1}))
    if result.status != 0:
        if _ABSENT in result.stderr:
            return None
        raise ExecuteError(f"nft: {result.stderr.strip().splitlines()[0] if result.stderr.strip() else 'no answer'}")
    return parse(result.stdout)


def parse(output: str) -> NftRules:
    """Parses the output of `nft -j list table`.

    Raises:
        ValueError: not JSON, or not a table of this agent.
    """
    try:
        items = json.loads(output)["nftables"]
        chains = [item["chain"] for item in items if "chain" in item]
        rules = [item["rule"]["expr"] for item in items if "rule" in item]
        (chain,) = chains
        parsed = [_parse_rule(expressions) for expressions in rules]
        is_closed = chain.get("policy") == "drop"
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as e:
        raise ValueError("the table cordon is not one that this agent wrote") from e
    port_rules = [rule for rule in parsed if rule is not None]
    return NftRules(
        closed=is_closed,
        allow=frozenset(port for port, verdict in port_rules if verdict == "accept"),
        deny=frozenset(port for port, verdict in port_rules if verdict == "drop"),
    )


def _parse_rule(expressions: list[dict[str, Any]]) -> tuple[ProtocolPort, str] | None:
    """Returns port and verdict of a rule about one port; None for the fixed rules."""
    match = expressions[0].get("match", {})
    left = match.get("left", {})
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    if payload.get("field") != "dport" or not isinstance(match.get("right"), int) or len(expressions) != 2:
        return None
    return (str(payload["protocol"]), int(match["right"])), next(iter(expressions[1]))
