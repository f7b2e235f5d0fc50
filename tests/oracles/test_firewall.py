"""What the firewall facts say of rule sets, against packets that the kernel lets through or not."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from device_agent.collectors.system.firewall_iptables import read_iptables
from device_agent.collectors.system.firewall_nft import parse_nft_ruleset, read_nft
from device_agent.collectors.system.firewall_nft_text import nft_objects
from device_agent.collectors.system.firewall_packets import Host, number_of, packets
from device_agent.collectors.system.firewall_ruleset import Ruleset
from device_agent.collectors.system.firewall_verdicts import admitted
from tests.oracles.firewall_rules import iptables_rules, nft_rules
from tests.oracles.packet_probe import DEVICE, PORTS
from tests.oracles.verdicts import Verdicts

pytestmark = [pytest.mark.oracles, pytest.mark.timeout(600)]

SEEDS: Final = (1, 2, 2026, 2027)
CASES: Final = 150  # rule sets of each seed
SECONDS: Final = 0.03  # to wait for answers; on a loaded machine once more, longer
MORE_SECONDS: Final = 1.0
HOST: Final = Host(
    {"ip": ("wan0",), "ip6": ("wan0",)},
    ("lan0", "wan0"),
    {family: tuple(number_of(address)[1] for address in addresses) for family, addresses in DEVICE.items()},
)
JSON_LIST: Final = ["nft", "-j", "list", "ruleset"]
TEXT_LIST: Final = ["nft", "list", "ruleset"]


class Prober:
    """The program that loads rules and sends packets, in a network namespace of its own."""

    def __init__(self) -> None:
        argv = ["unshare", "-n", sys.executable, "-m", "tests.oracles.packet_probe"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(
        self, rules: list[tuple[list[str], str]], lists: list[list[str]], *, seconds: float = SECONDS
    ) -> dict[str, Any]:
        """Returns what `packet_probe.answer` says."""
        assert self._process.stdin
        assert self._process.stdout
        has_source_ports = any("sport" in text for _, text in rules)
        request = {"rules": rules, "lists": lists, "has_source_ports": has_source_ports, "seconds": seconds}
        request["is_repeated"] = seconds > SECONDS
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """Ends the program."""
        self._process.communicate(timeout=20)


@pytest.fixture
def prober() -> Iterator[Prober]:
    if os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"):
        pytest.skip("nft in a network namespace needs root, nft, ip and unshare")
    started = Prober()
    yield started
    started.close()


def predicted(ruleset: Ruleset) -> tuple[set[str], set[str]]:
    """Returns the ports that strangers reach certainly and possibly, as `tcp ip 22`."""
    certain, possible = set(), set()
    for packet in packets(ruleset, HOST, "input", ("ip", "ip6")):
        admission = admitted(ruleset, packet)
        for port in PORTS:
            name = f"{packet.protocol} {packet.family} {port}"
            certain |= {name} if admission.certain >> port & 1 else set()
            possible |= {name} if admission.possible >> port & 1 else set()
    return certain, possible - certain


def compare(
    verdicts: Verdicts, prober: Prober, rules: list[tuple[list[str], str]], lists: list[list[str]], readers: list[Any]
) -> None:
    answer = prober.ask(rules, lists)
    if "error" in answer:
        return
    text = "".join(text for _, text in rules)
    predictions = [predicted(reader(answer["listed"])) for reader in readers]
    reached = set(answer["reached"])
    if any(certain - reached for certain, _ in predictions):
        reached |= set(prober.ask(rules, lists, seconds=MORE_SECONDS)["reached"])
    for certain, possible in predictions:
        is_unknown = bool(possible) and reached <= certain | possible
        verdicts.add(text, reached, certain, is_unknown=is_unknown)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_packet_passes_nftables_where_the_facts_say_closed(seed: int, prober: Prober) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("nft rules", seed)
    readers = [lambda listed: parse_nft(*listed), lambda listed: read_nft(nft_objects(listed[1]))]
    while verdicts.cases < 2 * CASES:  # JSON and text of each
        compare(verdicts, prober, [(["nft", "-f", "-"], nft_rules(rng))], [JSON_LIST, TEXT_LIST], readers)
    verdicts.check()


def parse_nft(json_text: str, text: str) -> Ruleset:
    """Reads nft's JSON, or its text where the collector would."""
    try:
        ruleset = parse_nft_ruleset(json_text)
    except ValueError:  # nft 1.0.6 prints the flags of tables from a wrong place in memory
        return read_nft(nft_objects(text))
    return read_nft(nft_objects(text)) if ruleset.needs_text else ruleset


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_no_packet_passes_iptables_where_the_facts_say_closed(seed: int, variant: str, prober: Prober) -> None:
    names = [(family, f"{tool}-{variant}") for family, tool in (("ip", "iptables"), ("ip6", "ip6tables"))]
    assert shutil.which(f"{names[0][1]}-save"), "iptables is not installed"
    rng = random.Random(seed)
    verdicts = Verdicts(f"iptables rules ({variant})", seed)

    def read(listed: list[str]) -> Ruleset:
        ruleset = read_iptables(listed[0], "ip")
        ruleset.extend(read_iptables(listed[1], "ip6"))
        return ruleset

    while verdicts.cases < CASES:
        rules = [([f"{name}-restore"], iptables_rules(rng, family)) for family, name in names]
        compare(verdicts, prober, rules, [[f"{name}-save"] for _, name in names], [read])
    verdicts.check()
