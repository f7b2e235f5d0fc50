"""A device with one interface to the outside, and what the firewall facts say of its rules."""

from typing import Any, Final

from device_agent.collectors.system.firewall import facts_of, uncovered_sockets
from device_agent.collectors.system.firewall_packets import Host, number_of
from device_agent.collectors.system.firewall_ruleset import Ruleset

BOTH: Final = frozenset({"ip", "ip6"})
HOST: Final = Host(
    {"ip": ("eth0",), "ip6": ("eth0",)},
    ("eth0", "eth1"),
    {"ip": (number_of("192.168.1.5")[1],), "ip6": (number_of("2a00::5")[1],)},
)


def covered(ruleset: Ruleset, *ports: tuple[str, int], families: frozenset[str] = BOTH) -> list[str]:
    """Returns the ports that are covered, as `tcp/22`; nothing is unknown."""
    sockets = {(protocol, port, "::" if "ip6" in families else "0.0.0.0") for protocol, port in ports}
    reading = uncovered_sockets(sockets, ruleset, HOST, families)
    assert not reading.gaps
    return sorted({f"{protocol}/{port}" for protocol, port in ports} - set(reading.value))


def facts(ruleset: Ruleset, families: frozenset[str] = BOTH) -> dict[str, Any]:
    """Returns the section of a device with services on the ports 22, 23, 80 and 53."""
    return facts_of(
        ruleset, HOST, families, {("tcp", 22, "::"), ("tcp", 80, "::"), ("tcp", 23, "::"), ("udp", 53, "::")}
    )
