"""Garbled, cut and extended rule sets: what was open or unknown never becomes closed by what was not understood."""

from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.collectors.system.firewall_iptables import read_iptables
from device_agent.collectors.system.firewall_nft import read_nft
from device_agent.collectors.system.firewall_nft_text import nft_objects
from tests.support.firewall import facts

SMALL: Final = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
JUNK: Final = "zz9"
NFT_CONDITIONS: Final = (
    "", "tcp dport 22", "tcp dport { 1-30000, 30001-65535 }", "udp dport 1-65535",
    "meta l4proto tcp",
    "meta l4proto { tcp, udp }",
    "ip saddr 0.0.0.0/0", "ip saddr != 10.0.0.0/8", "ct state new", "ct state established,related",
    "fib daddr type local",
    "meta nfproto ipv4", "ip protocol udp", "tcp flags syn", "meta pkttype host", "ct direction original",
    "meta mark 0x0",
    "limit rate 5/second", "counter packets 1 bytes 2", "icmp type echo-request", "ip daddr 192.168.1.5",
)  # fmt: skip
NFT_VERDICTS: Final = ("accept", "accept", "drop", "reject", "jump one", "goto one", "return")
NFT_MAPS: Final = (
    "tcp dport vmap { 22 : accept, 1-21 : drop }",
    "ct state vmap { new : accept, invalid : drop }",
    "meta l4proto vmap { tcp : jump one, udp : accept }",
)  # fmt: skip
MATCHES: Final = (
    "", "-p tcp -m tcp --dport 22", "-p tcp -m multiport --dports 1:30000,30001:65535", "-p udp", "-s 0.0.0.0/1",
    "-m conntrack --ctstate NEW", "-m conntrack --ctstate RELATED,ESTABLISHED", "-m addrtype --dst-type LOCAL",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-m pkttype --pkt-type unicast", "-m limit --limit 5/min",
    "-p icmp",
    "-m comment --comment x", "-m conntrack --ctdir ORIGINAL", "-m mark --mark 0x1",
)  # fmt: skip
TARGETS: Final = ("-j ACCEPT", "-j ACCEPT", "-j DROP", "-j REJECT", "-j one", "-g one", "-j RETURN", "-j LOG")


def nft_lines(rules: list[str], nested: list[str], policy: str) -> list[str]:
    base = f"type filter hook input priority filter; policy {policy};"
    return ["table inet t {", "chain one {", *nested, "}", "chain i {", base, *rules, "}", "}"]


def iptables_lines(rules: list[str], nested: list[str], policy: str) -> list[str]:
    appended = [f"-A INPUT {rule}" for rule in rules] + [f"-A one {rule}" for rule in nested]
    return ["*filter", f":INPUT {policy.upper()} [0:0]", ":one - [0:0]", *appended, "COMMIT"]


def nft_verdict(lines: list[str]) -> str | None:
    """Returns the default verdict; None for unknown, which a listing that cannot be read is too."""
    try:
        found: str | None = facts(read_nft(nft_objects("\n".join(lines) + "\n")))["default_input"]
    except ValueError:
        return None
    return found


def iptables_verdict(lines: list[str]) -> str | None:
    found: str | None = facts(read_iptables("\n".join(lines) + "\n", "ip"), frozenset({"ip"}))["default_input"]
    return found


NFT_RULE: Final = st.one_of(
    st.builds(lambda c, v: f"{c} {v}".strip(), st.sampled_from(NFT_CONDITIONS), st.sampled_from(NFT_VERDICTS)),
    st.sampled_from(NFT_MAPS),
)
IPTABLES_RULE: Final = st.builds(lambda m, t: f"{m} {t}".strip(), st.sampled_from(MATCHES), st.sampled_from(TARGETS))
NESTED: Final = st.lists(
    st.sampled_from(["accept", "drop", "tcp dport 80 accept", "ct state new accept", "udp dport 1-65535 drop"]),
    max_size=2,
)
NESTED_IPTABLES: Final = st.lists(
    st.sampled_from(["-j ACCEPT", "-j DROP", "-p tcp -m tcp --dport 80 -j ACCEPT", "-p udp -j DROP"]), max_size=2
)
POLICY: Final = st.sampled_from(["accept", "drop"])
CLOSED: Final = {"drop", "reject"}


@SMALL
@given(st.lists(NFT_RULE, max_size=4), NESTED, POLICY, st.data())
def test_a_garbled_word_of_nft_closes_nothing(
    rules: list[str], nested: list[str], policy: str, data: st.DataObject
) -> None:
    lines = nft_lines(rules, nested, policy)
    before = nft_verdict(lines)
    places = [(at, word) for at, line in enumerate(lines) for word in range(len(line.split())) if at > 0]
    at, word = data.draw(st.sampled_from(places))
    words = lines[at].split()
    words[word] = JUNK
    after = nft_verdict([*lines[:at], " ".join(words), *lines[at + 1 :]])
    assert before in CLOSED or after not in CLOSED


@SMALL
@given(st.lists(IPTABLES_RULE, max_size=4), NESTED_IPTABLES, POLICY, st.data())
def test_a_garbled_word_of_iptables_closes_nothing(
    rules: list[str], nested: list[str], policy: str, data: st.DataObject
) -> None:
    lines = iptables_lines(rules, nested, policy)
    before = iptables_verdict(lines)
    places = [(at, word) for at, line in enumerate(lines) for word in range(len(line.split())) if at > 1]
    at, word = data.draw(st.sampled_from(places))
    words = lines[at].split()
    words[word] = JUNK
    after = iptables_verdict([*lines[:at], " ".join(words), *lines[at + 1 :]])
    assert before in CLOSED or after not in CLOSED


@SMALL
@given(st.lists(NFT_RULE, max_size=4), st.lists(IPTABLES_RULE, max_size=4), POLICY, st.data())
def test_a_listing_that_was_cut_off_closes_nothing(
    nft: list[str], iptables: list[str], policy: str, data: st.DataObject
) -> None:
    lines = nft_lines(nft, ["accept"], policy)
    cut = data.draw(st.integers(1, len(lines) - 1))
    assert nft_verdict(lines[:cut]) is None
    lines = iptables_lines(iptables, ["-j ACCEPT"], policy)
    cut = data.draw(st.integers(2, len(lines) - 1))
    assert iptables_verdict(lines[:cut]) not in CLOSED or iptables_verdict(lines) in CLOSED


@SMALL
@given(st.lists(NFT_RULE, max_size=4), NESTED, POLICY, st.data())
def test_rules_that_are_not_understood_close_nothing(
    rules: list[str], nested: list[str], policy: str, data: st.DataObject
) -> None:
    lines = nft_lines(rules, nested, policy)
    before = nft_verdict(lines)
    at = data.draw(st.integers(6, 6 + len(nested) + len(rules)))
    junk = data.draw(
        st.sampled_from([f"{JUNK} drop", "meta iifkind veth drop", "queue num 1", "frob 5 jump one", "xt target X"])
    )
    assert before in CLOSED or nft_verdict([*lines[:at], junk, *lines[at:]]) not in CLOSED


@SMALL
@given(st.lists(NFT_RULE, min_size=1, max_size=5), NESTED, POLICY, st.data())
def test_without_a_closing_rule_nothing_is_closed_more(
    rules: list[str], nested: list[str], policy: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rules) - 1))
    if not rules[at].endswith(("drop", "reject")):
        return
    before = nft_verdict(nft_lines(rules, nested, policy))
    after = nft_verdict(nft_lines([*rules[:at], *rules[at + 1 :]], nested, policy))
    assert before in CLOSED or after not in CLOSED
