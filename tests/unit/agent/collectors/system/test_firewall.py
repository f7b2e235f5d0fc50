"""Packet filter: what its rules let in, from recorded rules and from nft in a network namespace."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.system import firewall
from device_agent.collectors.system.firewall import facts_of
from device_agent.collectors.system.firewall_nft import read_nft
from device_agent.collectors.system.firewall_nft_text import nft_objects
from device_agent.collectors.system.firewall_packets import Host
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from tests.support.firewall import HOST, covered, facts

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


@pytest.mark.parametrize("source", ["recorded", "real", "text"])
def test_chains_and_covered_ports_of_nftables(source: str) -> None:
    objects = list_with_nft(RULES) if source == "real" else nft_objects(RULES)
    ruleset = read_nft(_recorded() if source == "recorded" else objects)
    assert ruleset.count == 13
    assert not ruleset.gaps
    section = facts(ruleset)
    assert [(chain["name"], chain["hook"], chain["policy"]) for chain in section["chains"]] == [
        ("forwarded", "forward", "drop"), ("input", "input", "accept"), ("out", "output", "accept"),
    ]  # fmt: skip
    ports = [("tcp", port) for port in (22, 25, 26, 80, 443, 444, 445, 1005, 8005, 8011, 9000)]
    # Ports 25 and 444 are accepted for some sources only, and 445 is dropped on another interface only.
    both = ["tcp/1005", "tcp/22", "tcp/443", "tcp/80", "tcp/8005", "tcp/9000", "udp/53"]
    assert covered(ruleset, *ports, ("udp", 53), ("udp", 22)) == both
    # The rule for port 26 is about IPv4 only.
    assert set(covered(ruleset, *ports, ("udp", 53), families=frozenset({"ip"}))) == {*both, "tcp/26"}
    assert [section[f"default_{hook}"] for hook in ("input", "forward", "output")] == ["accept", "drop", "accept"]


# Rules of an input chain with policy drop that let strangers in to most ports: each kind with siblings.
OPEN: Final = {
    "every interface but loopback": "iifname != lo accept",
    "the interface outside": "iifname { eth0, wlan0 } accept",
    "a wildcard of the interface": 'iifname "eth*" accept',
    "all ports as a range": "tcp dport 0-65535 accept",
    "all ports of udp": "udp dport 1-65535 accept",
    "all ports in two parts": "tcp dport 1-30000 accept; tcp dport > 30000 accept",
    "all ports but one": "tcp dport != 22 accept",
    "most ports": "tcp dport 1024-65535 accept",
    "all ports in a set": "tcp dport @wide accept",
    "a set of protocols": "meta l4proto { tcp, udp } accept",
    "one protocol": "meta l4proto udp accept",
    "protocol of IPv4": "ip protocol tcp accept",
    "protocol of IPv6": "ip6 nexthdr udp accept",
    "prefix of all": "ip saddr 0.0.0.0/0 accept",
    "halves": "ip saddr 0.0.0.0/1 accept; ip saddr 128.0.0.0/1 accept",
    "all of IPv6": "ip6 saddr ::/0 accept",
    "all public addresses of IPv6": "ip6 saddr 2000::/3 accept",
    "all but one network": "ip saddr != 10.0.0.0/8 accept",
    "the own address": "ip daddr 192.168.1.5 accept",
    "local addresses": "fib daddr type local accept",
    "one family only": "meta nfproto ipv6 accept",
    "new connections": "ct state new accept",
    "states with new": "ct state { established, new } accept",
    "states but invalid": "ct state != invalid accept",
    "first packets": "tcp flags syn / fin,syn,rst,ack accept",
    "as many as one likes": "limit rate 10/second accept",
    "a port of the sender's choice": "udp sport 53 accept",
    "through a map of states": "ct state vmap { established : accept, new : jump admit }",
    "through a map of interfaces": "iifname vmap { lo : accept, eth0 : goto admit }",
    "through a named map": "meta l4proto vmap @verdicts",
    "through the rest of a map": "tcp dport vmap @rest",
    "through a jump that returns": "jump nothing; accept",
    "accepted before the end": "accept; drop",
    "a mark that nobody sets": "meta mark 0 accept",
    "a port and everything else": "tcp dport 22 accept; ip protocol 6 accept",
    "a negated list": "ip saddr != @few accept",
}  # fmt: skip
# ... and those that do not.
CLOSED: Final = {
    "nothing": "",
    "loopback": "iifname lo accept",
    "an interface that leads elsewhere": "iifname eth1 accept",
    "ports": "tcp dport { 22, 80, 8000-8100 } accept",
    "the dynamic ports": "tcp dport 49152-65535 accept",
    "one network": "ip saddr 10.0.0.0/8 accept",
    "a set of networks": "ip saddr @few accept",
    "link-local addresses": "ip6 saddr fe80::/10 accept",
    "another address": "ip daddr 224.0.0.251 accept",
    "groups": "fib daddr type multicast accept; meta pkttype broadcast accept",
    "answers": "ct state established,related accept",
    "states through a map": "ct state vmap { established : accept, related : accept, invalid : drop }",
    "other protocols": "meta l4proto { icmp, icmpv6 } accept; icmp type echo-request accept",
    "marks that nobody sets": "meta mark & 0xff == 1 accept",
    "packets that begin nothing": "tcp flags ack accept",
    "translated": "ct status dnat accept",
    "ports through a map": "tcp dport vmap { 22 : accept, 80 : jump admit }",
    "pairs": "ip saddr . tcp dport { 192.0.2.1 . 22, 10.0.0.0/8 . 1-65535 } accept",
    "dropped before": "tcp dport 0-65535 drop; udp dport 0-65535 drop; accept",
    "dropped in a chain": "jump refuse; accept",
    "all but one network dropped": "ip saddr != 10.0.0.0/8 drop; ip6 saddr ::/0 drop; accept",
    "no way back": "fib saddr . iif oif missing accept",
    "IPsec": "meta secpath exists accept",
}  # fmt: skip
TABLE: Final = """table inet t {
  set wide { type inet_service; flags interval; elements = { 1-1000, 1001-65535 } }
  set few { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 10.0.0.0/8 } }
  map verdicts { type inet_proto : verdict; elements = { tcp : accept, icmp : drop } }
  map rest { type inet_service : verdict; elements = { 22 : drop, * : accept } }
  chain admit { accept; }
  chain refuse { drop; }
  chain nothing { counter packets 1 bytes 2; return; }
  chain i { type filter hook input priority 0; policy drop; %s; }
}
"""


def table_with(rules: str) -> str:
    # Without sets, chains and semicolons that are not used, as nft prints them.
    return TABLE.replace("%s;", f"{rules};" if rules else "")


@pytest.mark.parametrize("form", ["text", "nft"])
@pytest.mark.parametrize("name", [*OPEN, *CLOSED])
def test_the_default_verdict_is_that_of_strangers(name: str, form: str) -> None:
    text = table_with({**OPEN, **CLOSED}[name])
    section = facts(read_nft(nft_objects(text) if form == "text" else list_with_nft(text)))
    assert section["gaps"] == []
    assert section["default_input"] == ("accept" if name in OPEN else "drop")
    assert section["active"] is (name not in {"accepted before the end", "through a jump that returns"})


NOT_UNDERSTOOD: Final = {
    "a match of unknown kind": "frobnicate 5 accept",
    "a match of unknown kind before a jump": "frobnicate 5 jump admit",
    "an interface by its kind": "meta iifkind veth accept",
    "decided by a program": "queue num 1",
    "a mark that rules set": "meta mark set 0x1; meta mark 0x1 accept",
    "a set that packets change": "ip saddr @seen accept; update @seen { ip saddr }",
    "a chain that is not there": "jump elsewhere",
    "a set that is not there": "ip saddr @elsewhere accept",
    "a comment where a match was": "counter # recent: CHECK name: x\n accept",
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_in_an_accepting_place_is_a_gap(name: str) -> None:
    text = table_with(NOT_UNDERSTOOD[name]).replace("chain admit", "set seen { type ipv4_addr; }\n chain admit")
    section = facts(read_nft(nft_objects(text)))
    assert section["default_input"] is None
    assert "default_input" in {gap["fact"] for gap in section["gaps"]}


@pytest.mark.parametrize("rules", ["frobnicate 5 drop", "queue num 1", "jump elsewhere", "meta iifkind veth drop"])
def test_what_is_not_understood_in_a_dropping_place_closes_nothing(rules: str) -> None:
    text = table_with(f"{rules}; accept")
    assert facts(read_nft(nft_objects(text)))["default_input"] is None
    assert facts(read_nft(nft_objects(table_with("meta iifkind veth accept; accept"))))["default_input"] == "accept"
    assert facts(read_nft(nft_objects(table_with("meta iifkind veth drop"))))["default_input"] == "drop"


DORMANT: Final = (
    "table inet t {\n\tflags dormant\n\n\tchain i {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n"
)


@pytest.mark.parametrize("form", ["text", "json", "collected"])
def test_a_dormant_table_filters_nothing(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = nft_objects(DORMANT)
    if form == "json":  # as nft 1.0.9 prints it
        objects[0]["table"]["flags"] = "dormant"
    section = facts(read_nft(objects))
    if form == "collected":  # nft 1.0.6 prints what happens to lie in memory; its text is right
        objects[0]["table"]["flags"] = "owner"
        use_nft(tmp_path, monkeypatch, json_output=json.dumps({"nftables": objects}), text=DORMANT)
        section = firewall.collect(System(is_root_user=True))
    assert (section["active"], section["default_input"]) == (False, "accept")
    if form != "collected":
        assert "tcp/22" in section["uncovered"]
        objects[0]["table"]["flags"] = ["frozen"]
        section = facts(read_nft(objects))
        assert (section["active"], section["default_input"]) == (None, None)


def use_nft(folder: Path, monkeypatch: pytest.MonkeyPatch, *, json_output: str, text: str) -> None:
    """Puts a program `nft` on PATH, the only one; without output it refuses."""
    outputs = {"json": json_output, "text": text}
    for name, output in outputs.items():
        (folder / name).write_text(f"{output}\n" if output else "")
    listing = 'case "$1" in -j) f=json;; *) f=text;; esac\n[ -s "$0.d/$f" ] || { echo "Error: refused" >&2; exit 1; }\n'
    program = folder / "nft"
    program.write_text(
        f'#!/bin/sh\n{listing.replace("$0.d", str(folder))}while read -r l; do echo "$l"; done < {folder}/$f\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("json_output", ["", "{", '{"nftables": 1}'])
def test_the_text_is_read_where_nft_gives_no_json(
    json_output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n"
    use_nft(tmp_path, monkeypatch, json_output=json_output, text=text)
    section = firewall.collect(System(is_root_user=True))
    assert (section["backend"], section["active"], section["default_input"]) == ("nftables", True, "drop")
    assert section["uncovered"] == []
    use_nft(tmp_path, monkeypatch, json_output=json_output, text="")
    with pytest.raises(FactsUnavailableError, match="cannot be read"):
        firewall.collect(System(is_root_user=True))


def test_chains_of_one_hook_all_have_to_accept() -> None:
    base = "table %s { chain i { type filter hook %s priority %s; policy %s; %s } }\n"
    open_chain = base % ("inet a", "input", "filter", "accept", "tcp dport 22 accept\n")
    for other in (
        base % ("ip b", "input", "10", "drop", ""),
        base % ("inet b", "prerouting", "raw", "drop", ""),
        base % ("netdev b", 'ingress device "eth0"', "0", "drop", ""),
        base % ("inet b", 'ingress devices = { "eth0", "eth1" }', "0", "drop", ""),
    ):
        assert facts(read_nft(nft_objects(open_chain + other)), frozenset({"ip"}))["default_input"] == "drop", other
    elsewhere = base % ("netdev b", 'ingress device "eth1"', "0", "drop", "")
    only_ipv6 = base % ("ip6 b", "input", "0", "drop", "")
    for other in (elsewhere, only_ipv6, base % ("arp b", "input", "0", "drop", "")):
        assert facts(read_nft(nft_objects(open_chain + other)), frozenset({"ip"}))["default_input"] == "accept", other
    # A translation makes it unknown which port the rules of an earlier hook are about.
    early = base % ("inet b", "prerouting", "raw", "accept", "tcp dport 23 drop\n")
    assert "tcp/23" not in facts(read_nft(nft_objects(early)))["uncovered"]
    moved = base.replace("filter hook", "nat hook") % (
        "inet c",
        "prerouting",
        "dstnat",
        "accept",
        "tcp dport 5 redirect to :23\n",
    )
    section = facts(read_nft(nft_objects(early + moved)))
    assert section["uncovered"] is None
    assert "tcp/23" not in section["partial"]["uncovered"]


ONLY_SSH: Final = """table ip filter { chain INPUT { type filter hook input priority filter; policy drop;
iifname "lo" accept
ct state established,related accept
tcp dport 22 accept
}
}
"""


@pytest.mark.parametrize(
    ("nat", "ports"),
    [
        ('iifname != "docker0" tcp dport 8080 dnat to 172.17.0.2:80', ["tcp/8080"]),
        ("tcp dport 8000-9000 dnat to 172.17.0.2", ["tcp/8080"]),
        ("tcp dport 8080 ip daddr set 172.17.0.2", ["tcp/8080"]),
        ("tcp dport 80 tproxy to :8080 accept", ["tcp/22", "tcp/23", "tcp/8080"]),
        ("tcp dport 81 dnat to 172.17.0.2:80", []),
        ("tcp dport 8080 redirect to :23", []),
        ("ip saddr 10.0.0.0/8 tcp dport 8080 dnat to 172.17.0.2:80", []),
    ],
)
def test_ports_whose_packets_go_past_the_rules_for_input_are_not_covered(nat: str, ports: list[str]) -> None:
    kind = "nat" if "dnat" in nat or "redirect" in nat else "filter"
    text = f"""table ip nat {{
chain PREROUTING {{ type {kind} hook prerouting priority dstnat; policy accept;
fib daddr type local jump DOCKER
}}
chain DOCKER {{
{nat}
}}
}}
"""
    for ruleset in (read_nft(nft_objects(text + ONLY_SSH)), read_nft(list_with_nft(text + ONLY_SSH))):
        sockets = {("tcp", port, "0.0.0.0") for port in (22, 23, 8080)}
        reading = firewall.uncovered_sockets(sockets, ruleset, HOST, frozenset({"ip"}))
        assert sorted(gap.source for gap in reading.gaps) == ports
        assert reading.value == []
        assert facts(ruleset, frozenset({"ip"}))["default_input"] == "drop"


def test_the_interfaces_outside_decide() -> None:
    text = "table inet t { chain i { type filter hook input priority 0; policy accept;\n%s\n}"
    text += " chain c { tcp dport 22 accept; drop; } }"
    ruleset = read_nft(nft_objects(text % 'iifname vmap { "lo" : accept, "eth0" : jump c }'))
    assert facts(ruleset)["default_input"] == "drop"
    elsewhere = Host({"ip": ("eth1",)}, ("eth0", "eth1"), HOST.addresses)
    assert facts_of(ruleset, elsewhere, frozenset({"ip"}), set())["default_input"] == "accept"
    both = Host({"ip": ("eth0", "eth1")}, ("eth0", "eth1"), HOST.addresses)
    assert facts_of(ruleset, both, frozenset({"ip"}), set())["default_input"] == "accept"
    assert facts_of(ruleset, Host(), frozenset({"ip"}), set())["default_input"] is None


def test_matches_of_extensions_that_nft_does_not_show_are_gaps() -> None:
    """The rules were recorded from nft 1.0.6."""
    home = {"family": "ip", "table": "filter"}
    port = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}
    tcp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}
    rules: list[list[dict[str, Any]]] = [
        [port, {"xt": {"type": "match", "name": "comment"}}, {"counter": {}}, {"accept": None}],
        [tcp, {"xt": {"type": "match", "name": "multiport"}}, {"drop": None}],
        [{"xt": {"type": "match", "name": "conntrack"}}, {"counter": {}}, {"accept": None}],
        [{"counter": {}}, {"xt": {"type": "target", "name": "REJECT"}}],
    ]
    base = {"chain": {**home, "name": "INPUT", "type": "filter", "hook": "input", "policy": "accept"}}
    found = []
    for chosen in (rules[:1], rules[1:2], rules[2:3], rules[3:], rules):
        objects = [base, *({"rule": {**home, "chain": "INPUT", "expr": rule}} for rule in chosen)]
        found.append(facts(read_nft(objects), frozenset({"ip"}))["default_input"])
    # UDP goes past the second rule; the third accepts what is accepted anyway.
    assert found == ["accept", "accept", "accept", "reject", None]


def test_the_section_of_this_machine_matches_nft(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("nft"):
        pytest.skip("needs root and nft")
    section = firewall.collect(System(is_root_user=True))
    sent = normalise_findings({"firewall": section}).sections["firewall"]
    assert sent["state"] == "ok"
    ruleset = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    chains = [chain for chain in read_nft(json.loads(ruleset)["nftables"]).base_chains if chain.kind == "filter"]
    assert {(chain.table, chain.name) for chain in chains} <= {(row["table"], row["name"]) for row in sent["chains"]}
    if not chains and not shutil.which("iptables-save"):
        assert (sent["active"], sent["default_input"], sent["default_forward"]) == (False, "accept", "accept")
