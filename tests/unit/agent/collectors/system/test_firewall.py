"""Packet filter: chains, default verdicts, covered ports, from recorded rules and from nft in a network namespace."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.system import firewall
from device_agent.collectors.system.firewall import uncovered_sockets
from device_agent.collectors.system.firewall_ruleset import FilterChain, default_verdict_at, read_iptables, read_nft
from device_agent.domain.report_limits import normalise_findings
from device_agent.host.system import System

BOTH: Final = frozenset({"ip", "ip6"})
RULES: Final = """
table inet filter {
  set ports { type inet_service; flags interval; elements = { 8000-8010, 9000 } }
  chain extra { tcp dport 443 accept; }
  chain some { tcp dport 444 accept; tcp dport 445 drop; }
  chain input { type filter hook input priority 0; policy accept;
    ct state established,related accept
    iif lo accept
    tcp dport { 22, 80, 1000-1010 } accept
    tcp dport @ports drop
    udp dport 53 reject
    ip saddr 10.0.0.0/8 tcp dport 25 accept
    ip saddr != 10.0.0.0/8 tcp dport 26 drop
    jump extra
    iifname "eth9" jump some
    ip saddr 10.0.0.0/8 counter drop
  }
  chain forwarded { type filter hook forward priority 0; policy drop; }
  chain out { type filter hook output priority 0; }
}
"""
# The output of nft 1.0.6 for these rules, to test the parser where nft is not installed.
_M = '{"match": {"op": "==", "left": {"payload": {"protocol": "%s", "field": "dport"}}, "right": %s}}'


def _recorded() -> list[dict[str, Any]]:
    def rule(chain: str, *expr: str) -> dict[str, Any]:
        return {"rule": {**home, "chain": chain, "expr": [json.loads(item) for item in expr]}}

    def chain(name: str, hook: str = "", policy: str = "accept") -> dict[str, Any]:
        base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy} if hook else {}
        return {"chain": {"family": "inet", "table": "filter", "name": name, **base}}

    home = {"family": "inet", "table": "filter"}
    source = '{"match": {"op": "%s", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.0"}}'
    state = '{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}'
    return [
        {"metainfo": {"version": "1.0.6"}},
        {"set": {**home, "name": "ports", "type": "inet_service", "elem": [{"range": [8000, 8010]}, 9000]}},
        chain("extra"), chain("some"), chain("input", "input"), chain("forwarded", "forward", "drop"),
        chain("out", "output"),
        rule("extra", _M % ("tcp", "443"), '{"accept": null}'),
        rule("some", _M % ("tcp", "444"), '{"accept": null}'), rule("some", _M % ("tcp", "445"), '{"drop": null}'),
        rule("input", state, '{"accept": null}'),
        rule("input", '{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "lo"}}', '{"accept": null}'),
        rule("input", _M % ("tcp", '{"set": [22, 80, {"range": [1000, 1010]}]}'), '{"accept": null}'),
        rule("input", _M % ("tcp", '"@ports"'), '{"drop": null}'),
        rule("input", _M % ("udp", "53"), '{"reject": {"type": "icmpx", "expr": "port-unreachable"}}'),
        rule("input", source % "==", _M % ("tcp", "25"), '{"accept": null}'),
        rule("input", source % "!=", _M % ("tcp", "26"), '{"drop": null}'),
        rule("input", '{"jump": {"target": "extra"}}'),
        rule("input", '{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth9"}}',
             '{"jump": {"target": "some"}}'),
        rule("input", source % "==", '{"counter": {"packets": 0, "bytes": 0}}', '{"drop": null}'),
    ]  # fmt: skip


def list_with_nft(rules: str) -> list[dict[str, Any]]:
    if os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("nft in a network namespace needs root, nft and unshare")
    script = 'printf %s "$1" | nft -f - && nft -j list ruleset'
    process = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, "x", rules], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in process.stderr:
        pytest.skip("no network namespaces here")
    assert process.returncode == 0, process.stderr
    objects: list[dict[str, Any]] = json.loads(process.stdout)["nftables"]
    return objects


@pytest.mark.parametrize("source", ["recorded", "real"])
def test_chains_and_covered_ports_of_nftables(source: str) -> None:
    chains, count = read_nft(_recorded() if source == "recorded" else list_with_nft(RULES))
    assert count == 13
    assert [(chain.name, chain.hook, chain.default_verdict) for chain in chains] == [
        ("input", "input", "accept"), ("forwarded", "forward", "drop"), ("out", "output", "accept"),
    ]  # fmt: skip
    covered = {(p, n) for p in ("tcp", "udp") for n in (22, 25, 26, 53, 80, 443, 444, 445, 1005, 8005, 8011, 9000)
               if chains[0].covers(p, n)}  # fmt: skip
    # Ports 25 and 444 are accepted for some sources only: the other sources fall through.
    tcp = {22, 26, 80, 443, 445, 1005, 8005, 9000}
    assert covered == {("udp", 53), *(("tcp", port) for port in tcp)}
    assert [default_verdict_at(chains, hook, BOTH) for hook in ("input", "forward", "output")] == [
        "accept",
        "drop",
        "accept",
    ]


ENDINGS: Final = {
    "drop at the end": ("tcp dport 22 accept; counter drop", "drop"),
    "reject of new connections": ("tcp dport 22 accept; ct state new reject", "reject"),
    "accept before the end": ("accept; drop", "accept"),
    "some sources only": ("ip saddr 10.0.0.1 drop", "accept"),
    "in a jumped-to chain": ("jump last", "drop"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_default_verdict_follows_the_end_of_the_chain(name: str) -> None:
    rules, verdict = ENDINGS[name]
    chain_i = f"chain i {{ type filter hook input priority 0; {rules}; }}"
    text = f"table inet t {{\nchain last {{ drop; }}\n{chain_i}\n}}\n"
    (chain,), _ = read_nft(list_with_nft(text))
    assert chain.default_verdict == verdict


IPTABLES: Final = """# Generated by iptables-save v1.8.9
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:own - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment ssh -j ACCEPT
-A INPUT -p tcp -m multiport --dports 80,443,1000:1010 -j ACCEPT
-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 25 -j ACCEPT
-A INPUT -p udp -j own
-A own -p udp -m udp --dport 53 -j DROP
-A own -j RETURN
-A INPUT -j LOG --log-prefix "x -j DROP"
COMMIT
"""


def test_chains_and_covered_ports_of_iptables() -> None:
    chains, count = read_iptables(IPTABLES, "ip")
    assert count == 9
    verdicts = {chain.hook: chain.default_verdict for chain in chains}
    assert verdicts == {"input": "accept", "forward": "drop", "output": "accept"}
    assert [port for port in (22, 25, 80, 443, 1010, 1011) if chains[0].covers("tcp", port)] == [22, 80, 443, 1010]
    assert chains[0].covers("udp", 53)
    closed, _ = read_iptables(
        IPTABLES.replace("COMMIT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable"), "ip"
    )
    assert closed[0].default_verdict == "reject"
    assert read_iptables(IPTABLES.replace("-A INPUT -i lo", "-A INPUT"), "ip")[0][0].default_verdict == "accept"


def test_matches_of_extensions_are_read_from_iptables_and_nft_alike() -> None:
    """The rules were recorded from iptables 1.8.9 and from nft 1.0.6."""
    text = (
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n"
        '-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "my ssh -j DROP" -j ACCEPT\n'
        "-A INPUT -p udp -m udp ! --dport 53 -j DROP\n-A INPUT ! -p tcp -j DROP\n"
        "-A INPUT -p tcp -m tcp --dport 99 --tcp-flags FIN,SYN,RST,ACK SYN -m limit --limit 5/min -j ACCEPT\n"
    )
    (chain,), _ = read_iptables(text, "ip")
    assert chain.default_verdict == "accept"
    assert [port for port in (("tcp", 22), ("tcp", 99), ("udp", 53), ("udp", 54)) if chain.covers(*port)] == [
        ("tcp", 22)
    ]
    last = "-A INPUT -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n"
    assert read_iptables(text + last, "ip")[0][0].default_verdict == "reject"

    home = {"family": "ip", "table": "filter"}
    port = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}
    tcp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}
    rules: list[list[dict[str, Any]]] = [
        [{"xt": {"type": "match", "name": "conntrack"}}, {"counter": {}}, {"accept": None}],
        [port, {"xt": {"type": "match", "name": "comment"}}, {"counter": {}}, {"accept": None}],
        [tcp, {"xt": {"type": "match", "name": "multiport"}}, {"drop": None}],
        [{"counter": {}}, {"xt": {"type": "target", "name": "REJECT"}}],
    ]
    base = {"chain": {**home, "name": "INPUT", "type": "filter", "hook": "input", "policy": "accept"}}
    for count, verdict in ((3, "accept"), (4, "reject")):
        objects = [base, *({"rule": {**home, "chain": "INPUT", "expr": rule}} for rule in rules[:count])]
        (chain,), _ = read_nft(objects)
        assert chain.default_verdict == verdict
        assert sorted(chain.covered) == [("tcp", 22, 22)]


def test_ipv6_is_open_when_only_ipv4_has_rules() -> None:
    closed, _ = read_iptables(IPTABLES.replace(":INPUT ACCEPT", ":INPUT DROP"), "ip")
    assert default_verdict_at(closed, "input", frozenset({"ip"})) == "drop"
    assert default_verdict_at(closed, "input", BOTH) == "accept"
    sockets = {("tcp", 22, "0.0.0.0"), ("tcp", 99, "::"), ("tcp", 98, "fd00::1"), ("udp", 97, "192.0.2.1")}
    assert uncovered_sockets(sockets, closed, BOTH) == ["tcp/98", "tcp/99"]
    assert uncovered_sockets(sockets, closed, frozenset({"ip"})) == []
    assert uncovered_sockets(sockets, [], frozenset({"ip"})) == ["tcp/22", "tcp/99", "udp/97"]


def test_circular_jumps_end() -> None:
    text = ":INPUT ACCEPT [0:0]\n" + "-A INPUT -j a\n" + "-A a -j b\n-A a -j b\n-A b -j a\n-A b -j a\n" * 50
    chains, _ = read_iptables(text, "ip")
    assert isinstance(chains[0], FilterChain)
    assert chains[0].default_verdict == "accept"


def test_the_section_of_this_machine_matches_nft(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("nft"):
        pytest.skip("needs root and nft")
    section = firewall.collect(System(is_root_user=True))
    sent = normalise_findings({"firewall": section}).sections["firewall"]
    assert sent["state"] == "ok"
    ruleset = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    chains, _ = read_nft(json.loads(ruleset)["nftables"])
    assert {(chain.table, chain.name) for chain in chains} <= {(row["table"], row["name"]) for row in sent["chains"]}
    if not chains and not shutil.which("iptables-save"):
        assert (sent["active"], sent["default_input"], sent["default_forward"]) == (False, "accept", "accept")
