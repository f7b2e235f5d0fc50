"""Generates nftables and iptables rule sets whose verdicts the probes of `packet_probe` can observe."""

import random
from collections.abc import Callable
from typing import Final

from tests.oracles.packet_probe import PORTS

_NETWORKS: Final = (
    "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "192.168.0.0/16", "{ 0.0.0.0/2, 64.0.0.0/2 }", "@halves",
    "1.0.0.0-127.255.255.255", "{ 192.0.2.1, 10.0.0.0/8 }", "@few",
)  # fmt: skip
_NETWORKS6: Final = ("::/0", "2000::/3", "2000::/4", "3000::/4", "fe80::/10", "{ 2000::/4, 3000::/5, 3800::/5 }")
_INTERFACES: Final = (
    'iifname "wan0"', 'iifname != "lo"', 'iif "lo"', 'iifname { "wan0", "lan0" }', 'iifname "wa*"', 'iifname "lan0"',
    'iifname != "lan0"', 'iifname != "wan0"', 'iif "lan0"',
)  # fmt: skip
_OTHER: Final = (
    "ct state new", "ct state established,related", "ct state { established, new }", "ct state != invalid",
    "ct state invalid", "ct state { invalid, untracked }", "ct direction original", "ct direction reply",
    "ct status dnat",
    "meta mark 0", "meta mark 0x1", "meta mark & 0xff == 0x10", "meta mark != 0", "ct mark 0x5", "fib daddr type local",
    "fib daddr type { local, broadcast }", "fib daddr type multicast", "fib saddr . iif oif missing",
    "fib saddr . iif oif exists", "meta pkttype host", "meta pkttype { broadcast, multicast }", "meta nfproto ipv4",
    "meta nfproto ipv6", "meta protocol ip6", "ether saddr 02:00:00:00:00:77", "ether saddr != 02:00:00:00:00:77",
    "ip daddr 198.51.100.1", "ip daddr 10.1.2.1", "ip daddr != 198.51.100.1", "ip daddr 224.0.0.0/4",
    "ip6 daddr 2a0f::1",
    "ip6 daddr ff00::/8",
)  # fmt: skip
_PROTOCOLS: Final = (
    "meta l4proto tcp", "meta l4proto { tcp, udp }", "meta l4proto icmp", "meta l4proto != udp", "ip protocol udp",
    "ip protocol { tcp, icmp }", "ip6 nexthdr tcp", "meta l4proto { icmp, ipv6-icmp }", "icmp type echo-request",
    "icmpv6 type { nd-neighbor-solicit, nd-router-advert }",
)  # fmt: skip
_FLAGS: Final = (
    "tcp flags & (fin|syn|rst|ack) == syn", "tcp flags syn", "tcp flags & (fin|syn|rst|ack) != syn", "tcp flags ack",
    "tcp flags & (syn|fin) == (syn|fin)", "tcp flags & (fin|syn|rst|ack) != syn ct state new",
)  # fmt: skip
_CHOSEN: Final = ("limit rate 10000/second burst 10000 packets", "ip ttl > 1", "meta length < 2000", "ip dscp cs0")


def _port(rng: random.Random) -> str:
    kind = rng.random()
    port = rng.choice(PORTS)
    if kind < 0.35:
        return str(port)
    if kind < 0.5:
        return f"{{ {', '.join(str(p) for p in sorted(rng.sample(PORTS, rng.randint(1, 4))))} }}"
    if kind < 0.7:
        low = rng.choice([0, 1, 20, 1000, 1024, 8000])
        return f"{low}-{rng.choice([port for port in (100, 2000, 9000, 40000, 65535) if port > low])}"
    if kind < 0.8:
        return f"!= {rng.choice([str(port), '1-1023', '{ 22, 80 }'])}"
    if kind < 0.9:
        return f"{rng.choice(['<', '>', '<=', '>='])} {port}"
    return "@ports" if kind < 0.95 else "{ 1-1000, 1001-65535 }"


def _ports(rng: random.Random) -> str:
    protocol = rng.choice(["tcp", "tcp", "udp", "th"])
    field = "sport" if rng.random() < 0.08 else "dport"
    head = "meta l4proto { tcp, udp } " if protocol == "th" else ""
    value = rng.choice(["53", "1000", "!= 53", "1-1023", "> 1023"]) if field == "sport" else _port(rng)
    return f"{head}{protocol} {field} {value}"


def _source(rng: random.Random) -> str:
    negation = "!= " if rng.random() < 0.25 else ""
    if rng.random() < 0.3:
        return f"ip6 saddr {negation}{rng.choice(_NETWORKS6)}"
    return f"ip saddr {negation}{rng.choice(_NETWORKS)}"


def _concatenation(rng: random.Random) -> str:
    return rng.choice(
        [
            "ip saddr . tcp dport { 0.0.0.0/1 . 22, 10.0.0.0/8 . 1-65535, 128.0.0.0/1 . 443 }",
            "meta l4proto . th dport { tcp . 22, udp . 53, tcp . 80-443 }",
            'iifname . tcp dport { "wan0" . 22, "lan0" . 80 }',
            "ip saddr . udp dport @pairs",
            "ip6 saddr . tcp dport { 2000::/4 . 80, ::/0 . 1024-2000 }",
        ]
    )


def _conditions(rng: random.Random, family: str, *, has_protocol: bool) -> list[str]:
    """Returns up to three conditions, of which nft refuses few: on the protocol, the source, and others."""
    kinds: list[Callable[[random.Random], str]] = [
        lambda r: r.choice([_ports, _ports, _ports, _protocols, _concatenation])(r), _source,
        lambda r: r.choice(_INTERFACES), lambda r: r.choice(_OTHER),
    ]  # fmt: skip
    chosen = rng.sample(kinds[0 if has_protocol else 1 :], rng.choice([0, 1, 1, 1, 2, 2, 3]))
    foreign = {
        "ip": ("ip6 ", "icmpv6", "nfproto", "meta protocol"),
        "ip6": ("ip ", "icmp ", "nfproto", "meta protocol"),
    }
    found = [kind(rng) for kind in kinds if kind in chosen]
    return [text for text in found if not any(word in text for word in foreign.get(family, ()))]


def _protocols(rng: random.Random) -> str:
    return rng.choice(_FLAGS if rng.random() < 0.4 else _PROTOCOLS)


def _verdict(rng: random.Random, later: list[str]) -> str:
    if later and rng.random() < 0.35:
        return f"{rng.choice(['jump', 'jump', 'goto'])} {rng.choice(later)}"
    # nft does not show for which family a reset is: rare, as it makes the facts unknown.
    reset = "reject with tcp reset" if rng.random() < 0.3 else "reject"
    return rng.choice(["accept", "accept", "accept", "drop", "drop", "reject", "return", "counter", reset])


def _map(rng: random.Random, later: list[str]) -> str:
    def verdict() -> str:
        return (
            f"jump {rng.choice(later)}"
            if later and rng.random() < 0.4
            else rng.choice(["accept", "drop", "return", "continue"])
        )

    kind = rng.random()
    if kind < 0.35:
        first, second = sorted(rng.sample(PORTS, 2))
        rest = f", * : {verdict()}" if rng.random() < 0.3 else ""
        return f"{rng.choice(['tcp', 'udp'])} dport vmap {{ {first} : {verdict()}, {second} : {verdict()}{rest} }}"
    if kind < 0.5:
        return f"ct state vmap {{ established : accept, new : {verdict()}, invalid : drop }}"
    if kind < 0.65:
        return f'iifname vmap {{ "lo" : accept, "wan0" : {verdict()} }}'
    if kind < 0.8:
        return f"meta l4proto vmap {{ tcp : {verdict()}, udp : {verdict()} }}"
    if kind < 0.9:
        return f"ip saddr vmap {{ 0.0.0.0/1 : {verdict()}, 128.0.0.0/2 : {verdict()} }}"
    return "tcp dport vmap @verdicts"


def _rule(rng: random.Random, family: str, later: list[str]) -> str:
    if rng.random() < 0.15:
        found = _map(rng, later)
        if family == "ip6" and "ip saddr" in found:
            found = "tcp dport vmap @verdicts"
        return " ".join([*(_conditions(rng, family, has_protocol=False) if rng.random() < 0.4 else []), found])
    conditions = _conditions(rng, family, has_protocol=True)
    if rng.random() < 0.04:
        chosen = rng.choice(_CHOSEN if family != "ip6" else _CHOSEN[:1])
        return " ".join([*conditions, chosen, "accept"])
    before = "counter " if rng.random() < 0.2 else ""
    after = ' comment "tcp dport 22 accept"' if rng.random() < 0.1 else ""
    mark = "meta mark set 0x1 " if rng.random() < 0.002 else ""
    return f"{' '.join(conditions)} {before}{mark}{_verdict(rng, later)}{after}".strip()


def _table(rng: random.Random, family: str, name: str) -> str:
    names = [f"c{number}" for number in range(rng.randint(0, 3))]
    chains = []
    for number, chain in enumerate(names):
        rules = "".join(f"    {_rule(rng, family, names[number + 1 :])}\n" for _ in range(rng.randint(0, 4)))
        chains.append(f"  chain {chain} {{\n{rules}  }}\n")
    for number in range(rng.choice([1, 1, 1, 2])):
        hook, priority = rng.choice(
            [("input", "filter"), ("input", "filter + 10"), ("input", "-5"), ("prerouting", "raw")]
        )
        policy = rng.choice(["accept", "drop", "drop"]) if hook == "input" else "accept"
        rules = "".join(f"    {_rule(rng, family, names)}\n" for _ in range(rng.randint(0, 6)))
        base = f"    type filter hook {hook} priority {priority}; policy {policy};\n"
        chains.append(f"  chain base{number} {{\n{base}{rules}  }}\n")
    flags = "  flags dormant;\n" if rng.random() < 0.05 else ""
    sets = (
        "  set ports { type inet_service; flags interval; elements = { 22, 1000-2000 }; }\n"
        "  set halves { type ipv4_addr; flags interval; elements = { 0.0.0.0/2, 128.0.0.0/2, 192.0.0.0/2 }; }\n"
        "  set few { type ipv4_addr; elements = { 192.0.2.1, 10.0.0.1 }; }\n"
        "  set pairs { type ipv4_addr . inet_service; flags interval;\n"
        "    elements = { 0.0.0.0/1 . 53, 0.0.0.0/0 . 80-90 }; }\n"
        "  map verdicts { type inet_service : verdict; flags interval;\n"
        "    elements = { 22 : accept, 1000-2000 : drop, * : accept }; }\n"
    )
    return f"table {family} {name} {{\n{flags}{sets}{_declared(names)}{''.join(chains)}}}\n"


def _declared(names: list[str]) -> str:
    return "".join(f"  chain {name} {{ }}\n" for name in reversed(names))


def nft_rules(rng: random.Random) -> str:
    """Returns one to three tables; nft refuses some of them."""
    tables = [
        _table(rng, rng.choice(["inet", "inet", "ip", "ip6"]), f"t{number}")
        for number in range(rng.choice([1, 1, 2, 3]))
    ]
    if rng.random() < 0.06:
        device = rng.choice(["wan0", "lan0"])
        rule = rng.choice(["drop", "tcp dport 22 drop", "ip saddr 0.0.0.0/1 drop", "meta protocol ip6 drop", "accept"])
        base = f'type filter hook ingress device "{device}" priority 0; policy accept;'
        tables.append(f"table netdev n {{\n  chain g {{\n    {base}\n    {rule}\n  }}\n}}\n")
    return "".join(tables)


_MATCHES: Final = (
    "-i wan0", "! -i lo", "-i lo", "-i wa+", "-i lan0", "! -i wan0", "-s {net}", "! -s {net}", "-s {net} -d {own}",
    "-d {own}", "-p tcp -m tcp --dport {port}", "-p udp -m udp --dport {port}", "-p tcp -m tcp ! --dport {port}",
    "-p tcp -m multiport --dports {ports}", "-p udp -m multiport --dports {ports}",
    "-p tcp -m tcp --dport {low}:{high}",
    "-p udp -m udp --dport 1:65535", "-p tcp", "-p udp", "-p {icmp}", "! -p tcp",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED", "-m conntrack ! --ctstate INVALID",
    "-m state --state NEW,ESTABLISHED",
    "-m conntrack --ctstate INVALID", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-m addrtype --dst-type LOCAL",
    "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW", "-m addrtype --dst-type MULTICAST",
    "-m mark --mark 0x1", "-m mark ! --mark 0x1", '-m comment --comment "-j ACCEPT"', "-m pkttype --pkt-type unicast",
    "-m mac --mac-source 02:00:00:00:00:77", "-m iprange --src-range {range}", "-p udp -m udp --sport 53",
    "-p tcp -m tcp --sport 1:1023 --dport {port}", "-m conntrack --ctdir ORIGINAL",
)  # fmt: skip
_FILL4: Final = {"own": "198.51.100.1/32", "icmp": "icmp"}
_FILL6: Final = {"own": "2a0f::1/128", "icmp": "ipv6-icmp"}


def iptables_rules(rng: random.Random, family: str) -> str:
    """Returns the text of a table `filter` for `iptables-restore`."""
    nets = (
        ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8") if family == "ip" else ("::/0", "2000::/4", "fe80::/10")
    )
    ranges = (
        ("0.0.0.0-127.255.255.255", "10.0.0.0-10.0.0.9") if family == "ip" else ("2000::-2fff:ffff::", "fe80::-fe81::")
    )
    names = ["one", "two"]
    lines = [
        "*filter",
        f":INPUT {rng.choice(['ACCEPT', 'DROP', 'DROP'])} [0:0]",
        *(f":{name} - [0:0]" for name in names),
    ]
    for number, chain in enumerate(["INPUT", *names]):
        for _ in range(rng.randint(0, 6 if chain == "INPUT" else 3)):
            fill = {
                **(_FILL4 if family == "ip" else _FILL6), "net": rng.choice(nets), "range": rng.choice(ranges),
                "port": rng.choice(PORTS), "low": rng.choice([0, 1, 20, 1024]), "high": rng.choice([2000, 9000, 65535]),
                "ports": rng.choice(["22,80", "53,1000:2000", "1:30000,30001:65535"]),
            }  # fmt: skip
            matches = " ".join(m.format(**fill) for m in rng.sample(_MATCHES, rng.choice([0, 1, 1, 1])))
            later = names[number:]
            targets = ["ACCEPT", "ACCEPT", "ACCEPT", "DROP", "DROP", "REJECT", "RETURN", *later]
            target = f"-g {rng.choice(later)}" if later and rng.random() < 0.1 else f"-j {rng.choice(targets)}"
            lines.append(f"-A {chain} {matches} {target}")
    return "\n".join([*lines, "COMMIT", ""])
