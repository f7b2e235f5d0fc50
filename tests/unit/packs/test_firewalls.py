"""The rule sets that the first-class platforms come with, written after their documentation, judged by the packs."""

from typing import Any, Final

import pytest

from controller.domain.policy.findings import RuleResult
from device_agent.collectors.system.firewall import facts_of
from device_agent.collectors.system.firewall_iptables import read_iptables
from device_agent.collectors.system.firewall_nft import read_nft
from device_agent.collectors.system.firewall_nft_text import nft_objects
from device_agent.collectors.system.firewall_packets import Host, number_of
from device_agent.collectors.system.firewall_ruleset import Ruleset
from tests.support.packs import failing_rules

BOTH: Final = frozenset({"ip", "ip6"})
OWN: Final[dict[str, tuple[int, ...]]] = {"ip": (number_of("192.168.1.5")[1],), "ip6": (number_of("2a00::5")[1],)}
HOST: Final = Host({"ip": ("eth0",), "ip6": ("eth0",)}, ("eth0",), OWN)
ROUTER: Final = Host({"ip": ("wan",), "ip6": ("wan",)}, ("br-lan", "wan"), OWN)
RULES: Final = {
    "baseline-system": ("firewall-on", "firewall-closed", "firewall-covers-ports", "no-open-forwarding"),
    "starter": ("firewall-active", "firewall-default-closed"),
}

# firewalld 1.x with nftables, the only interface in zone public: RHEL 9, CentOS Stream, Fedora, openSUSE.
FIREWALLD: Final = """table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept;
    jump mangle_PREROUTING_ZONES
  }
  chain mangle_PREROUTING_ZONES { iifname "eth0" goto mangle_PRE_public; goto mangle_PRE_public; }
  chain mangle_PRE_public { jump mangle_PRE_public_allow; }
  chain mangle_PRE_public_allow { }
  chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; }
  chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept;
    ct state { established, related } accept
    oifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24 } reject with icmpv6 addr-unreachable
  }
  chain filter_INPUT_ZONES { iifname "eth0" goto filter_IN_public; goto filter_IN_public; }
  chain filter_FORWARD_ZONES { iifname "eth0" goto filter_FWD_public; goto filter_FWD_public; }
  chain filter_IN_public { jump filter_IN_public_deny; jump filter_IN_public_allow;
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_IN_public_deny { }
  chain filter_IN_public_allow {
    tcp dport 22 accept
    ip6 daddr fe80::/64 udp dport 546 accept
    tcp dport 9090 accept
  }
  chain filter_FWD_public { jump filter_FWD_public_allow; reject with icmpx admin-prohibited; }
  chain filter_FWD_public_allow { }
}
"""
# OpenWrt 23.05, fw4 with the zones lan and wan.
FW4: Final = """table inet fw4 {
  chain input { type filter hook input priority filter; policy drop;
    iif "lo" accept comment "!fw4: Accept traffic from loopback"
    ct state vmap { established : accept, related : accept } comment "!fw4: Handle inbound flows"
    tcp flags & (fin | syn | rst | ack) == syn jump syn_flood comment "!fw4: Rate limit TCP syn packets"
    iifname "br-lan" jump input_lan comment "!fw4: Handle lan IPv4/IPv6 input traffic"
    iifname "wan" jump input_wan comment "!fw4: Handle wan IPv4/IPv6 input traffic"
    jump handle_reject
  }
  chain forward { type filter hook forward priority filter; policy drop;
    ct state vmap { established : accept, related : accept }
    iifname "br-lan" jump forward_lan
    iifname "wan" jump forward_wan
    jump handle_reject
  }
  chain output { type filter hook output priority filter; policy accept;
    oif "lo" accept
    ct state vmap { established : accept, related : accept }
    oifname "br-lan" jump output_lan
    oifname "wan" jump output_wan
  }
  chain prerouting { type filter hook prerouting priority filter; policy accept; iifname "br-lan" jump helper_lan; }
  chain handle_reject {
    meta l4proto tcp reject with tcp reset comment "!fw4: Reject TCP traffic"
    reject comment "!fw4: Reject any other traffic"
  }
  chain syn_flood {
    limit rate 25/second burst 50 packets return comment "!fw4: Accept SYN packets below rate-limit"
    drop comment "!fw4: Drop excess packets"
  }
  chain input_lan { jump accept_from_lan; }
  chain output_lan { jump accept_to_lan; }
  chain forward_lan { jump accept_to_wan; jump accept_to_lan; }
  chain helper_lan { }
  chain accept_from_lan { iifname "br-lan" counter packets 9 bytes 900 accept; }
  chain accept_to_lan { oifname "br-lan" counter packets 9 bytes 900 accept; }
  chain input_wan {
    meta nfproto ipv4 udp dport 68 counter packets 0 bytes 0 accept comment "!fw4: Allow-DHCP-Renew"
    icmp type echo-request counter packets 0 bytes 0 accept comment "!fw4: Allow-Ping"
    meta nfproto ipv4 meta l4proto igmp counter packets 0 bytes 0 accept comment "!fw4: Allow-IGMP"
    meta nfproto ipv6 udp dport 546 counter packets 0 bytes 0 accept comment "!fw4: Allow-DHCPv6"
    ip6 saddr fe80::/10 icmpv6 type . icmpv6 code { mld-listener-query . no-route } accept
    icmpv6 type { destination-unreachable, time-exceeded, echo-request } limit rate 1000/second counter accept
    icmpv6 type . icmpv6 code { packet-too-big . no-route } limit rate 1000/second accept
    jump reject_from_wan
  }
  chain output_wan { jump accept_to_wan; }
  chain forward_wan {
    icmpv6 type { destination-unreachable, echo-request } limit rate 1000/second burst 5 packets counter accept
    meta l4proto esp counter packets 0 bytes 0 jump accept_to_lan comment "!fw4: Allow-IPSec-ESP"
    udp dport 500 counter packets 0 bytes 0 jump accept_to_lan comment "!fw4: Allow-ISAKMP"
    jump reject_to_wan
  }
  chain accept_to_wan {
    meta nfproto ipv4 oifname "wan" ct state invalid counter packets 0 bytes 0 drop
    oifname "wan" counter packets 0 bytes 0 accept
  }
  chain reject_from_wan { iifname "wan" counter packets 0 bytes 0 jump handle_reject; }
  chain reject_to_wan { oifname "wan" counter packets 0 bytes 0 jump handle_reject; }
  chain dstnat { type nat hook prerouting priority dstnat; policy accept; }
  chain srcnat { type nat hook postrouting priority srcnat; policy accept; oifname "wan" jump srcnat_wan; }
  chain srcnat_wan { meta nfproto ipv4 masquerade comment "!fw4: Masquerade IPv4 wan traffic"; }
  chain raw_prerouting { type filter hook prerouting priority raw; policy accept; }
  chain mangle_forward { type filter hook forward priority mangle; policy accept;
    iifname "wan" tcp flags syn / fin,syn,rst tcp option maxseg size set rt mtu comment "!fw4: Zone MTU fixing"
    oifname "wan" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu
  }
}
"""
_UFW_CHAINS: Final = "".join(
    f":ufw{v}-{place}-{hook} - [0:0]\n"
    for v in ("", "6")
    for hook in ("input", "forward", "output")
    for place in ("before-logging", "before", "after", "after-logging", "reject", "track", "user", "skip-to-policy")
)


def ufw(version: str) -> str:
    """The table of an enabled ufw: incoming denied, outgoing allowed, routed disabled, SSH allowed."""
    u, icmp = f"ufw{version}", "icmp" if not version else "ipv6-icmp"
    lines = [f"-A {hook.upper()} -j {u}-{place}-{hook}" for hook in ("input", "forward", "output")
             for place in ("before-logging", "before", "after", "after-logging", "reject", "track")]  # fmt: skip
    lines += [
        f"-A {u}-before-input -i lo -j ACCEPT",
        *([f"-A {u}-before-input -m rt --rt-type 0 -j DROP"] if version else []),
        f"-A {u}-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A {u}-before-input -m conntrack --ctstate INVALID -j {u}-logging-deny",
        f"-A {u}-before-input -m conntrack --ctstate INVALID -j DROP",
        f"-A {u}-before-input -p {icmp} -m icmp{version} --icmp{version and 'v6'}-type 3 -j ACCEPT",
        *(["-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT", "-A ufw-before-input -j ufw-not-local",
           "-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT"] if not version else
          ["-A ufw6-before-input -s fe80::/10 -d fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT",
           "-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT"]),
        f"-A {u}-before-input -j {u}-user-input",
        f"-A {u}-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A {u}-before-forward -p {icmp} -j ACCEPT",
        f"-A {u}-before-forward -j {u}-user-forward",
        f"-A {u}-before-output -o lo -j ACCEPT",
        f"-A {u}-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A {u}-before-output -j {u}-user-output",
        f"-A {u}-after-input -p udp -m udp --dport 137 -j {u}-skip-to-policy-input",
        f"-A {u}-after-input -m addrtype --dst-type BROADCAST -j {u}-skip-to-policy-input",
        f'-A {u}-after-logging-input -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
        f"-A {u}-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN",
        f'-A {u}-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
        f"-A {u}-skip-to-policy-input -j DROP",
        f"-A {u}-skip-to-policy-forward -j DROP",
        f"-A {u}-skip-to-policy-output -j ACCEPT",
        f"-A {u}-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT",
        f"-A {u}-user-input -p tcp -m tcp --dport 22 -j ACCEPT",
        f'-A {u}-user-limit -m limit --limit 3/min -j LOG --log-prefix "[UFW LIMIT BLOCK] "',
        f"-A {u}-user-limit -j REJECT --reject-with {'icmp' if not version else 'icmp6'}-port-unreachable",
        f"-A {u}-user-limit-accept -j ACCEPT",
    ]  # fmt: skip
    if not version:
        lines += [
            "-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN",
            "-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN",
            "-A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN",
            "-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny",
            "-A ufw-not-local -j DROP",
        ]
    more = "".join(
        f":{u}-{name} - [0:0]\n" for name in ("not-local", "logging-deny", "user-limit", "user-limit-accept")
    )
    head = f"*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{_UFW_CHAINS}{more}"
    return head + "".join(f"{line}\n" for line in lines) + "COMMIT\n"


def ufw_rules() -> Ruleset:
    ruleset = read_iptables(ufw(""), "ip")
    ruleset.extend(read_iptables(ufw("6"), "ip6"))
    return ruleset


def judged(ruleset: Ruleset, host: Host, result: RuleResult) -> set[str]:
    sockets = {("tcp", 22, "::"), ("tcp", 8080, "0.0.0.0"), ("udp", 5353, "::")}
    section: dict[str, Any] = {**facts_of(ruleset, host, BOTH, sockets), "backend": "nftables"}
    assert section["gaps"] == []
    found = {rule for pack in RULES for rule in failing_rules(pack, result, firewall=section)}
    return found & {rule for rules in RULES.values() for rule in rules}


# Containers with published ports beside the zones.
PUBLISHED: Final = (
    FIREWALLD
    + """table ip nat {
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump PORTS; }
  chain PORTS { tcp dport 8080 dnat to 10.88.0.2:80; }
}
"""
)


def test_a_translation_of_all_ports_makes_unknown_what_comes_in() -> None:
    text = PUBLISHED.replace("tcp dport 8080 dnat to 10.88.0.2:80", "iifname eth0 redirect")
    section = facts_of(read_nft(nft_objects(text)), HOST, BOTH, set())
    assert section["default_input"] is None
    iptables = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate DNAT -j ACCEPT\nCOMMIT\n*nat\n"
    iptables += ":PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080\nCOMMIT\n"
    for given, verdict in ((iptables, "drop"), (iptables.replace(" -m tcp --dport 80", ""), None)):
        assert facts_of(read_iptables(given, "ip"), HOST, frozenset({"ip"}), set())["default_input"] == verdict


PLATFORMS: Final = {
    "RHEL, Fedora, openSUSE": (read_nft(nft_objects(FIREWALLD)), HOST),
    "OpenWrt": (read_nft(nft_objects(FW4)), ROUTER),
    "Ubuntu with ufw": (ufw_rules(), HOST),
}


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_firewall_of_a_platform_passes(name: str) -> None:
    ruleset, host = PLATFORMS[name]
    assert judged(ruleset, host, RuleResult.PASS) == {rule for rules in RULES.values() for rule in rules}


def test_published_ports_of_containers_leave_open_whether_they_are_covered() -> None:
    """Their packets pass by the rules for input; those for forwarding are not evaluated."""
    section = facts_of(read_nft(nft_objects(PUBLISHED)), HOST, BOTH, {("tcp", 8080, "0.0.0.0")})
    assert [(gap["fact"], gap["source"]) for gap in section["gaps"]] == [("uncovered", "tcp/8080")]
    assert section["default_input"] == "reject"


# Debian's /etc/nftables.conf, as Raspberry Pi OS has it: chains without rules.
EMPTY: Final = "".join(
    f"  chain {hook} {{ type filter hook {hook} priority filter; policy accept; }}\n"
    for hook in ("input", "forward", "output")
)


@pytest.mark.parametrize("text", ["", f"table inet filter {{\n{EMPTY}}}\n"])
def test_rules_of_debian_that_filter_nothing_fail(text: str) -> None:
    ruleset = read_nft(nft_objects(text))
    assert judged(ruleset, HOST, RuleResult.FAIL) == {"firewall-on", "firewall-active", "firewall-covers-ports"}


WEAKENED: Final = {
    "the interface in the zone trusted": (FIREWALLD.replace("meta l4proto { icmp, ipv6-icmp } accept", "accept"), HOST),
    "all ports in the zone": (FIREWALLD.replace("tcp dport 9090", "tcp dport 1025-65535"), HOST),
    "the zone wan accepts": (FW4.replace('{ iifname "wan" counter', '{ accept; iifname "wan" counter'), ROUTER),
    "the zone lan leads outside": (FW4, Host({"ip": ("br-lan",), "ip6": ("br-lan",)}, ("br-lan",), OWN)),
}  # fmt: skip


@pytest.mark.parametrize("name", WEAKENED)
def test_a_weakened_firewall_of_a_platform_fails(name: str) -> None:
    text, host = WEAKENED[name]
    assert {"firewall-closed", "firewall-default-closed"} <= judged(read_nft(nft_objects(text)), host, RuleResult.FAIL)


def test_an_open_ufw_fails() -> None:
    for version, family in (("", "ip"), ("6", "ip6")):
        ruleset = ufw_rules()
        added = f"-A ufw{version}-user-input -j ACCEPT\n-A ufw{version}-user-input -p tcp -m tcp --dport 22"
        text = ufw(version).replace(f"-A ufw{version}-user-input -p tcp -m tcp --dport 22", added)
        other = read_iptables(ufw("" if version else "6"), "ip" if version else "ip6")
        ruleset = read_iptables(text, family)
        ruleset.extend(other)
        assert {"firewall-closed", "firewall-covers-ports"} <= judged(ruleset, HOST, RuleResult.FAIL), family
