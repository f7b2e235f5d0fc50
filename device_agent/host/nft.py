"""The agent's own table of nftables, `inet cordon`: read from the kernel, and replaced there as a whole."""

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
    """What the table says: `closed`: refuse what no rule admits; `allow` and `deny`: ports."""

    closed: bool = False
    allow: frozenset[ProtocolPort] = frozenset()
    deny: frozenset[ProtocolPort] = frozenset()

    def with_allowed(self, ports: frozenset[ProtocolPort]) -> Self:
        """These ports admitted, and not refused any more."""
        return replace(self, allow=self.allow | ports, deny=self.deny - ports)

    def with_denied(self, ports: frozenset[ProtocolPort]) -> Self:
        """These ports refused, and not admitted any more."""
        return replace(self, deny=self.deny | ports, allow=self.allow - ports)

    def __str__(self) -> str:
        """In a few words; `off` where there is no table."""
        default = "closed" if self.closed else "open"
        return f"{default}, allow {_words(self.allow)}, deny {_words(self.deny)}"


def _words(ports: frozenset[ProtocolPort]) -> str:
    return " ".join(f"{number}/{proto}" for proto, number in sorted(ports)) or "none"


def script(rules: NftRules | None) -> str:
    """What nft is given: the whole table anew in one transaction, or only its end."""
    # Made first, so that deleting it is no error where it was not there.
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
            # Without neighbour discovery and path MTU messages IPv6, and long packets at all, do not arrive.
            "  meta l4proto { icmp, ipv6-icmp } accept",
            # An address that is not renewed takes the device off the network as surely as a rule.
            "  udp sport . udp dport { 67 . 68, 547 . 546 } accept",
            *(f"  {proto} dport {number} accept" for proto, number in sorted(rules.allow)),
            " }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def current() -> NftRules | None:
    """What the kernel holds; None without our table.

    Raises:
        ExecuteError: nft is missing or refuses.
        ValueError: the table is not one that we wrote.
    """
    done = run(["nft", "-j", "list", "table", "inet", TABLE], ok=frozenset({0, 1}))
    if done.status != 0:
        if _ABSENT in done.err:
            return None
        raise ExecuteError(f"nft: {done.err.strip().splitlines()[0] if done.err.strip() else 'no answer'}")
    return parse(done.out)


def parse(out: str) -> NftRules:
    """Read what `nft -j list table` writes.

    Raises:
        ValueError: not JSON, or not a table of ours.
    """
    try:
        items = json.loads(out)["nftables"]
        chains = [item["chain"] for item in items if "chain" in item]
        rules = [item["rule"]["expr"] for item in items if "rule" in item]
        (chain,) = chains
        verdicts = [_verdict(expressions) for expressions in rules]
        is_closed = chain.get("policy") == "drop"
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as e:
        raise ValueError("the table cordon is not one that this agent wrote") from e
    known = [verdict for verdict in verdicts if verdict is not None]
    return NftRules(
        closed=is_closed,
        allow=frozenset(port for port, word in known if word == "accept"),
        deny=frozenset(port for port, word in known if word == "drop"),
    )


def _verdict(expressions: list[dict[str, Any]]) -> tuple[ProtocolPort, str] | None:
    """The port and the word of a rule about one port; None for the fixed ones."""
    match = expressions[0].get("match", {})
    left = match.get("left", {})
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    if payload.get("field") != "dport" or not isinstance(match.get("right"), int) or len(expressions) != 2:
        return None
    return (str(payload["protocol"]), int(match["right"])), next(iter(expressions[1]))
