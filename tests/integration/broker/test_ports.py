"""`cordon broker ports` as it is called: from names alone, and from a live controller; with real sockets probed."""

import json
import socket
from pathlib import Path

import pytest

from controller.adapters.probes import reachable
from controller.domain.broker.ports import is_loopback
from controller.main import main
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer


def test_names_need_neither_broker_nor_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["broker", "ports", "--node-name", "emqx1@10.0.0.1", "--node-name", "emqx2@10.0.0.2", "-o", "json"]
    assert main(argv) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["node"], row["port"]) for row in rows if row["use"] == "discovery"} == {
        ("emqx1@10.0.0.1", 4371),
        ("emqx2@10.0.0.2", 4372),
    }
    assert {row["peers"] for row in rows if row["use"] in ("discovery", "rpc")} == {"cluster"}
    assert main(["broker", "ports", "--node-name", "nonsense"]) == 2
    assert "not a node name" in capsys.readouterr().err
    assert main(["broker", "ports", "--node-name", "emqx@10.0.0.1", "--node-name", "mqtt@10.0.0.1"]) == 1
    assert "both need discovery port 4370" in capsys.readouterr().err


def test_rules_are_printed_for_nft(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["broker", "ports", "--node-name", "emqx1@10.0.0.1", "--docker", "-o", "nftables"]
    assert main([*argv, "--operators", "10.9.0.0/24"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("# EMQX's ports")
    assert "tcp dport { 4371, 5369 } drop" in said.out
    assert said.err == ""
    assert main(argv) == 0
    assert "no --operators given" in capsys.readouterr().err


def test_a_loopback_node_is_probed_and_says_nothing_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 4379)):
        assert main(["broker", "ports", "--node-name", "emqx9@127.0.0.1", "--probe", "-o", "json"]) == 0
    rows = {row["port"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows[4379]["reachable"], rows[4379]["verdict"]) == (True, "reachable, by loopback")
    assert (rows[5379]["reachable"], rows[5379]["verdict"]) == (False, "not reachable")


def test_a_cluster_port_that_can_be_reached_fails(capsys: pytest.CaptureFixture[str]) -> None:
    here = _address()
    with socket.create_server((here, 4379)):
        assert main(["broker", "ports", "--node-name", f"emqx9@{here}", "--probe"]) == 1
    assert "reachable, should not be" in capsys.readouterr().out


async def test_probing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = await reachable([("127.0.0.1", port), ("127.0.0.1", 1), ("no-such-host.invalid", 1)])
    assert found == {("127.0.0.1", port): True, ("127.0.0.1", 1): False, ("no-such-host.invalid", 1): False}
    assert is_loopback("127.0.0.1")
    assert not is_loopback("10.0.0.1")


def test_the_live_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ApiServer(tmp_path / "c.db", {}) as server:
        server.answers["nodes"] = [{"node": f"emqx{number}@10.0.0.{number}"} for number in (1, 2, 3)]
        server.answers["listeners"] = {
            f"emqx{number}@10.0.0.{number}": [{"type": "ssl", "bind": f"0.0.0.0:888{number}", "enable": True}]
            for number in (1, 2)
        }
        argv = ["broker", "ports", "--url", server.url, "--token", TOKEN, "--no-docker", "-o", "json"]
        assert main(argv) == 0
        said = capsys.readouterr()
        assert "emqx3@10.0.0.3: no answer in time" in said.err
        rows = sorted((row["node"], row["use"], row["port"]) for row in json.loads(said.out))
        assert [row for row in rows if row[0] != "emqx3@10.0.0.3"] == [
            ("emqx1@10.0.0.1", "dashboard", 18083),
            ("emqx1@10.0.0.1", "discovery", 4371),
            ("emqx1@10.0.0.1", "mqtts", 8881),
            ("emqx1@10.0.0.1", "rpc", 5371),
            ("emqx2@10.0.0.2", "dashboard", 18083),
            ("emqx2@10.0.0.2", "discovery", 4372),
            ("emqx2@10.0.0.2", "mqtts", 8882),
            ("emqx2@10.0.0.2", "rpc", 5372),
        ]
        assert {row[1:] for row in rows if row[0] == "emqx3@10.0.0.3"} >= {("discovery", 4373), ("mqtts", 8883)}
        del server.answers["nodes"]
        assert main(argv) == 1
        assert "lists no nodes" in capsys.readouterr().err


def _address() -> str:
    """An address of this machine that is not loopback; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address besides loopback")
        found = str(probe.getsockname()[0])
    if found.startswith("127."):
        pytest.skip("this machine has no address besides loopback")
    return found
