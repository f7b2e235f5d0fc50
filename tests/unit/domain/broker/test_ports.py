"""Ports of nodes from their names, and firewall rules that the real nft accepts."""

import os
import shutil
import subprocess

import pytest

from controller.domain.broker.inspection import parse_bind, parse_listeners
from controller.domain.broker.ports import (
    AllowedNetworks,
    BrokerListener,
    NodePort,
    PortPeers,
    PortsError,
    PortUse,
    collisions,
    nftables,
    node_ports,
    parse_node,
)

_NFT = shutil.which("nft") or ""


@pytest.mark.parametrize(
    ("name", "host", "number"),
    [
        ("emqx1@10.0.0.1", "10.0.0.1", 1),
        ("emqx@node1.emqx.io", "node1.emqx.io", 0),  # digits after the @ do not count
        ("node12abc@h", "h", 0),
        ("emqx-core-12@emqx-headless.default.svc", "emqx-headless.default.svc", 12),
        ("e007@::1", "::1", 7),
    ],
)
def test_number_of_a_node_is_at_the_end_of_its_name_before_the_at(name: str, host: str, number: int) -> None:
    assert parse_node(name) == (host, number)
    ports = {(port.use, port.port) for port in node_ports(name, docker=False)}
    assert {(PortUse.DISCOVERY, 4370 + number), (PortUse.RPC, 5370 + number)} <= ports


@pytest.mark.parametrize("name", ["", "emqx", "@h", "a@", "a b@h", "a@h;x", "x" * 300 + "@h", "emqx99999@h"])
def test_invalid_node_name_is_refused(name: str) -> None:
    with pytest.raises(PortsError):
        parse_node(name)


def rpc(docker: bool | None) -> list[int]:
    return [port.port for port in node_ports("emqx2@h", docker=docker) if port.use is PortUse.RPC]


def test_docker_image_has_its_own_rpc_port() -> None:
    assert rpc(docker=True) == [5369]
    assert rpc(docker=False) == [5372]
    assert rpc(docker=None) == [5372, 5369]


def test_listeners_of_the_broker_replace_the_defaults() -> None:
    rows = [
        {"type": "ssl", "bind": "0.0.0.0:8884", "enable": True},
        {"type": "tcp", "bind": "127.0.0.1:1883", "enable": True},
        {"type": "ws", "bind": "[::]:8083", "enable": False},
        {"type": "quic", "bind": ":14567", "enable": True},
        "nonsense",
    ]
    listening = parse_listeners(rows)
    assert listening == (BrokerListener(PortUse.MQTTS, "*", 8884), BrokerListener(PortUse.MQTT, "127.0.0.1", 1883))
    ports = node_ports("emqx1@h", docker=False, listening=listening)
    assert [(port.use, port.port, port.peers) for port in ports[2:]] == [
        (PortUse.MQTTS, 8884, PortPeers.DEVICES),
        (PortUse.MQTT, 1883, PortPeers.OPERATORS),
    ]
    assert ports[-1].note == "bound to 127.0.0.1"


def test_bind_is_parsed_in_every_form() -> None:
    assert [parse_bind(text) for text in ("1883", ":1883", "[::1]:8883", "10.0.0.1:1883", "x", None)] == [
        ("*", 1883), ("*", 1883), ("::1", 8883), ("10.0.0.1", 1883), ("*", 0), ("*", 0),
    ]  # fmt: skip


def test_nodes_of_one_host_with_the_same_number_collide() -> None:
    ports = [*node_ports("emqx@h"), *node_ports("broker@h"), *node_ports("emqx@other")]
    (discovery, rpc) = collisions(ports)
    assert discovery == (
        "emqx@h and broker@h on h both need discovery port 4370: end their names with different numbers"
    )
    assert "rpc port 5370" in rpc
    assert collisions([*node_ports("a1@h"), *node_ports("a2@h")]) == ()


def cluster() -> list[NodePort]:
    names = ("emqx1@10.0.0.1", "emqx2@10.0.0.2", "emqx3@fd00::3", "emqx@four.example")
    return [port for name in names for port in node_ports(name)]


CASES = [
    AllowedNetworks(),
    AllowedNetworks(operators=("10.9.0.0/24", "10.9.0.7", "fd00:9::/64"), devices=("10.20.0.0/16",)),
]


@pytest.mark.parametrize("allowed", CASES)
def test_cluster_ports_are_closed_to_other_peers(allowed: AllowedNetworks) -> None:
    text = nftables(cluster(), {"four.example": "10.0.0.4"}, allowed)
    accept = text.index("@cluster4 accept")
    drop = text.index("drop", accept)
    line = text[text.rindex("\n", 0, accept) : accept]
    for port in (4370, 4371, 4372, 4373, 5369, 5370, 5371, 5373):
        assert f" {port}" in line
    assert accept < drop
    assert "policy accept" in text, "other ports are not concerned"
    assert ("8883 } accept" in text) is (not allowed.devices)


def test_host_without_an_address_and_invalid_network_are_refused() -> None:
    with pytest.raises(PortsError, match=r"--address four\.example=ADDRESS"):
        nftables(cluster(), {}, AllowedNetworks())
    with pytest.raises(PortsError, match="neither an address nor a network"):
        nftables(cluster(), {"four.example": "10.0.0.4"}, AllowedNetworks(operators=("everyone",)))


@pytest.mark.skipif(not _NFT or os.geteuid() != 0, reason="needs root and nft (Debian: nftables)")
@pytest.mark.parametrize("allowed", CASES)
def test_real_nft_accepts_the_rules(allowed: AllowedNetworks) -> None:
    text = nftables(cluster(), {"four.example": "10.0.0.4"}, allowed)
    done = subprocess.run([_NFT, "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + text
