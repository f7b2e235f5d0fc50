"""Which ports an EMQX node opens, who has business there, and firewall rules that let only those in. Pure.

Discovery (Erlang distribution) listens on 4370 plus the number that ends the node's name before the `@`, RPC on 5370
plus the same; EMQX's Docker image sets RPC to 5369 by hand.
"""

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DISCOVERY_BASE: Final = 4370
RPC_BASE: Final = 5370
DOCKER_RPC: Final = 5369
MAX_NAME: Final = 255  # characters of a node name
MAX_NODES: Final = 256
_LAST_PORT: Final = 65535
_NAME: Final = re.compile(r"^([A-Za-z0-9_-]{1,128})@([A-Za-z0-9._:-]{1,126})$")
_NUMBER: Final = re.compile(r"[0-9]+$")
_TABLE: Final = "cordon_emqx"


class PortsError(ValueError):
    """A node name, address or network that cannot be used; the text says which."""


class PortUse(StrEnum):
    """What a port is for."""

    DISCOVERY = "discovery"
    RPC = "rpc"
    MQTT = "mqtt"
    MQTTS = "mqtts"
    WEBSOCKET = "ws"
    WEBSOCKET_TLS = "wss"
    DASHBOARD = "dashboard"
    DASHBOARD_TLS = "dashboard-tls"


class PortPeers(StrEnum):
    """Who has business at a port."""

    CLUSTER = "cluster"  # the other nodes, nobody else
    DEVICES = "devices"  # whoever has a certificate or password to show over TLS
    OPERATORS = "operators"  # people, Cordon, and what still speaks in clear text


_PEERS: Final = {
    PortUse.DISCOVERY: PortPeers.CLUSTER,
    PortUse.RPC: PortPeers.CLUSTER,
    PortUse.MQTTS: PortPeers.DEVICES,
    PortUse.WEBSOCKET_TLS: PortPeers.DEVICES,
}
_DEFAULTS: Final = (
    (PortUse.MQTT, 1883),
    (PortUse.MQTTS, 8883),
    (PortUse.WEBSOCKET, 8083),
    (PortUse.WEBSOCKET_TLS, 8084),
    (PortUse.DASHBOARD, 18083),
    (PortUse.DASHBOARD_TLS, 18084),
)


@dataclass(frozen=True, slots=True)
class NodePort:
    """One port of one node; `note` says what is not certain about it."""

    node: str
    host: str
    port: int
    use: PortUse
    note: str = ""

    @property
    def peers(self) -> PortPeers:
        """Who may reach it."""
        return _PEERS.get(self.use, PortPeers.OPERATORS)


@dataclass(frozen=True, slots=True)
class BrokerListener:
    """A listener as the broker describes it: its use and where it is bound, `*` for every address."""

    use: PortUse
    address: str
    port: int


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its loopback address: others cannot reach it there."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def parse_node(name: str) -> tuple[str, int]:
    """Host and number of a node's name.

    Raises:
        PortsError: it is no node name, or its number leaves no room for its ports.
    """
    match = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None:
        raise PortsError(f"{name[:MAX_NAME]!r} is no node name: it is name@host, as in emqx1@10.0.0.1")
    digits = _NUMBER.search(match.group(1))
    number = int(digits.group()) if digits is not None else 0
    if RPC_BASE + number > _LAST_PORT:
        raise PortsError(f"{name}: its number {number} leads beyond the last port: EMQX could not start")
    return match.group(2), number


def node_ports(
    name: str, *, docker: bool | None = None, listening: Sequence[BrokerListener] | None = None
) -> tuple[NodePort, ...]:
    """Everything the node is expected to open; without `listening` EMQX's own defaults.

    `docker`: whether it runs EMQX's Docker image, `None` if that is not known, so that both RPC ports are told.

    Raises:
        PortsError: see `parse_node`.
    """
    host, number = parse_node(name)
    ports = [NodePort(name, host, DISCOVERY_BASE + number, PortUse.DISCOVERY)]
    if docker is not True:
        note = "" if docker is False else "outside of EMQX's Docker image"
        ports.append(NodePort(name, host, RPC_BASE + number, PortUse.RPC, note))
    if docker is not False:
        ports.append(NodePort(name, host, DOCKER_RPC, PortUse.RPC, "" if docker else "in EMQX's Docker image"))
    if listening is None:
        ports += [NodePort(name, host, port, use, "EMQX's default") for use, port in _DEFAULTS]
    else:
        for one in listening:
            bound = "" if one.address == "*" else f"bound to {one.address}"
            ports.append(NodePort(name, host, one.port, one.use, bound))
    return tuple(ports)


def collisions(ports: Iterable[NodePort]) -> tuple[str, ...]:
    """Ports that two nodes of one host would both want: the second one does not start."""
    owners: defaultdict[tuple[str, int, PortUse], list[str]] = defaultdict(list)
    for one in ports:
        if one.use in (PortUse.DISCOVERY, PortUse.RPC) and one.port != DOCKER_RPC:
            owners[one.host, one.port, one.use].append(one.node)
    return tuple(
        f"{' and '.join(names)} on {host} both want {use.value} port {port}: end their names with different numbers"
        for (host, port, use), names in owners.items()
        if len(names) > 1
    )


@dataclass(frozen=True, slots=True)
class AllowedNetworks:
    """Who is let in besides the nodes themselves, as networks; empty `devices` are all."""

    operators: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


def network(text: str) -> str:
    """An address or network in one spelling.

    Raises:
        PortsError: it is none.
    """
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError as e:
        raise PortsError(f"{text!r} is no address and no network such as 10.0.0.0/24") from e


def nftables(ports: Sequence[NodePort], addresses: Mapping[str, str], allowed: AllowedNetworks) -> str:
    """A table for every node's host, to load with `nft -f`: it deals with EMQX's ports and with nothing else.

    `addresses` gives the address of each host that is named by name.

    Raises:
        PortsError: a host without an address, or a network that is none.
    """
    hosts = {one.host: addresses.get(one.host, one.host) for one in ports}
    peers = [_address(host, text) for host, text in hosts.items()]
    sets = {"cluster": peers, "operators": [network(one) for one in allowed.operators]}
    if allowed.devices:
        sets["devices"] = [network(one) for one in allowed.devices]
    lines = [
        "# EMQX's ports and who may reach them; made by `cordon broker ports`. It decides about nothing else.",
        *(f"# {text}" for text in collisions(ports)),
        f"table inet {_TABLE}",
        f"delete table inet {_TABLE}",
        f"table inet {_TABLE} {{",
    ]
    for name, networks in sets.items():
        lines += _sets(name, networks)
    lines += [
        "  chain input {",
        "    type filter hook input priority filter - 5; policy accept;",
        '    iif "lo" accept',
        "    ct state established,related accept",
    ]
    for group in PortPeers:
        lines += _rules(group, sorted({one.port for one in ports if one.peers is group}), open_=not allowed.devices)
    return "\n".join([*lines, "  }", "}", ""])


def _address(host: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as e:
        raise PortsError(f"the host {host} has no address here: give --address {host}=ADDRESS") from e


def _sets(name: str, networks: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for version in (4, 6):
        own = [one for one in networks if ipaddress.ip_network(one).version == version]
        merged = ipaddress.collapse_addresses(ipaddress.ip_network(one) for one in own)  # type: ignore[type-var]  # one version
        elements = ", ".join(_element(str(one)) for one in merged)
        lines.append(f"  set {name}{version} {{")
        lines.append(f"    type ipv{version}_addr; flags interval;")
        if elements:
            lines.append(f"    elements = {{ {elements} }}")
        lines.append("  }")
    return lines


def _element(text: str) -> str:
    address, _, bits = text.partition("/")
    return address if bits in ("32", "128") else text


def _rules(group: PortPeers, numbers: Sequence[int], *, open_: bool) -> list[str]:
    if not numbers:
        return []
    ports = ", ".join(str(one) for one in numbers)
    if group is PortPeers.DEVICES and open_:
        return [f"    # {group.value}: open, TLS asks who comes", f"    tcp dport {{ {ports} }} accept"]
    return [
        f"    # {group.value} only",
        f"    tcp dport {{ {ports} }} ip saddr @{group.value}4 accept",
        f"    tcp dport {{ {ports} }} ip6 saddr @{group.value}6 accept",
        f"    tcp dport {{ {ports} }} drop",
    ]
