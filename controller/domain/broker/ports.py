"""Ports of an EMQX node, who may reach them, and firewall rules that allow only those. Pure.

Discovery (Erlang distribution) listens on 4370 plus the number at the end of the node's name before the `@`, RPC on
5370 plus that number; EMQX's Docker image sets RPC to 5369.
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
    """A node name, address or network is invalid; the text says which."""


class PortUse(StrEnum):
    """What a port is used for."""

    DISCOVERY = "discovery"
    RPC = "rpc"
    MQTT = "mqtt"
    MQTTS = "mqtts"
    WEBSOCKET = "ws"
    WEBSOCKET_TLS = "wss"
    DASHBOARD = "dashboard"
    DASHBOARD_TLS = "dashboard-tls"


class PortPeers(StrEnum):
    """Who may reach a port."""

    CLUSTER = "cluster"  # the other nodes only
    DEVICES = "devices"  # clients that authenticate over TLS
    OPERATORS = "operators"  # operators, Cordon, and clients without TLS


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
    """One port of one node; `note` says what is uncertain about it."""

    node: str
    host: str
    port: int
    use: PortUse
    note: str = ""

    @property
    def peers(self) -> PortPeers:
        return _PEERS.get(self.use, PortPeers.OPERATORS)


@dataclass(frozen=True, slots=True)
class BrokerListener:
    """A listener as the broker describes it; `address` is `*` for every address."""

    use: PortUse
    address: str
    port: int


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its loopback address: others cannot reach it there."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def parse_node(name: str) -> tuple[str, int]:
    """Returns host and number of a node's name.

    Raises:
        PortsError: the name is invalid, or its number is too large for its ports.
    """
    match = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None:
        raise PortsError(f"{name[:MAX_NAME]!r} is not a node name: write name@host, as in emqx1@10.0.0.1")
    digits = _NUMBER.search(match.group(1))
    number = int(digits.group()) if digits is not None else 0
    if RPC_BASE + number > _LAST_PORT:
        raise PortsError(f"{name}: its number {number} leads beyond the last port: EMQX could not start")
    return match.group(2), number


def node_ports(
    name: str, *, docker: bool | None = None, listening: Sequence[BrokerListener] | None = None
) -> tuple[NodePort, ...]:
    """Returns the ports that a node is expected to open; EMQX's defaults without `listening`.

    `docker`: whether the node runs EMQX's Docker image; with `None` (unknown) both RPC ports are returned.

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
        for listener in listening:
            note = "" if listener.address == "*" else f"bound to {listener.address}"
            ports.append(NodePort(name, host, listener.port, listener.use, note))
    return tuple(ports)


def collisions(ports: Iterable[NodePort]) -> tuple[str, ...]:
    """Returns the ports that two nodes of one host would open, of which the second could not start."""
    owners: defaultdict[tuple[str, int, PortUse], list[str]] = defaultdict(list)
    for each in ports:
        if each.use in (PortUse.DISCOVERY, PortUse.RPC) and each.port != DOCKER_RPC:
            owners[each.host, each.port, each.use].append(each.node)
    return tuple(
        f"{' and '.join(names)} on {host} both need {use.value} port {port}: end their names with different numbers"
        for (host, port, use), names in owners.items()
        if len(names) > 1
    )


@dataclass(frozen=True, slots=True)
class AllowedNetworks:
    """Networks that are allowed besides the nodes; empty `devices` allow all."""

    operators: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


def network(text: str) -> str:
    """Returns an address or network in its normal form.

    Raises:
        PortsError: the text is neither.
    """
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError as e:
        raise PortsError(f"{text!r} is neither an address nor a network such as 10.0.0.0/24") from e


def nftables(ports: Sequence[NodePort], addresses: Mapping[str, str], allowed: AllowedNetworks) -> str:
    """Returns a table for the host of every node, to load with `nft -f`; it concerns EMQX's ports only.

    `addresses`: the address of each host that is given by name.

    Raises:
        PortsError: a host has no address, or a network is invalid.
    """
    hosts = {port.host: addresses.get(port.host, port.host) for port in ports}
    peers = [_address(host, text) for host, text in hosts.items()]
    sets = {"cluster": peers, "operators": [network(text) for text in allowed.operators]}
    if allowed.devices:
        sets["devices"] = [network(text) for text in allowed.devices]
    lines = [
        "# EMQX's ports and who may reach them; made by `cordon broker ports`. Other ports are not concerned.",
        *(f"# {text}" for text in collisions(ports)),
        f"table inet {_TABLE}",
        f"delete table inet {_TABLE}",
        f"table inet {_TABLE} {{",
    ]
    for name, networks in sets.items():
        lines += _set_lines(name, networks)
    lines += [
        "  chain input {",
        "    type filter hook input priority filter - 5; policy accept;",
        '    iif "lo" accept',
        "    ct state established,related accept",
    ]
    for group in PortPeers:
        lines += _rule_lines(
            group, sorted({port.port for port in ports if port.peers is group}), open_=not allowed.devices
        )
    return "\n".join([*lines, "  }", "}", ""])


def _address(host: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as e:
        raise PortsError(f"the host {host} has no address here: give --address {host}=ADDRESS") from e


def _set_lines(name: str, networks: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for version in (4, 6):
        own = [text for text in networks if ipaddress.ip_network(text).version == version]
        merged = ipaddress.collapse_addresses(ipaddress.ip_network(text) for text in own)  # type: ignore[type-var]  # one version
        elements = ", ".join(_element(str(each)) for each in merged)
        lines.append(f"  set {name}{version} {{")
        lines.append(f"    type ipv{version}_addr; flags interval;")
        if elements:
            lines.append(f"    elements = {{ {elements} }}")
        lines.append("  }")
    return lines


def _element(text: str) -> str:
    address, _, bits = text.partition("/")
    return address if bits in ("32", "128") else text


def _rule_lines(group: PortPeers, numbers: Sequence[int], *, open_: bool) -> list[str]:
    if not numbers:
        return []
    ports = ", ".join(map(str, numbers))
    if group is PortPeers.DEVICES and open_:
        return [f"    # {group.value}: open, clients authenticate over TLS", f"    tcp dport {{ {ports} }} accept"]
    return [
        f"    # {group.value} only",
        f"    tcp dport {{ {ports} }} ip saddr @{group.value}4 accept",
        f"    tcp dport {{ {ports} }} ip6 saddr @{group.value}6 accept",
        f"    tcp dport {{ {ports} }} drop",
    ]
