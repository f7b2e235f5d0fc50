"""Nodes that share one state: what is lost with a killed node and what stays, and how a node treats its clients."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import mqtt5
import pytest

from controller.standin.codec5 import decode
from controller.standin.frames import FrameBuffer
from controller.standin.options import StandInOptions
from controller.standin.server import StandIn
from tests.support.certs import Certs
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.waiting import wait_for

SECRET = "s3cret"
NODES = [f"emqx{n}@127.0.0.1" for n in (1, 2, 3)]


def _api(standin: StandIn, node: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{standin.api_urls[node]}/api/v5", auth=("cordon", SECRET), trust_env=False)


async def _connect(standin: StandIn, node: int, clientid: str, **options: Any) -> Probe:
    return await asyncio.to_thread(Probe(Endpoint(*standin.mqtt_addresses[node]), clientid, **options).enter)


async def test_killing_a_node_loses_its_sessions_and_nothing_else() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET, nodes=3)) as standin:
        lost = await _connect(standin, 1, "lost", clean=False, expiry=3600)
        kept = await _connect(standin, 0, "kept")
        async with _api(standin, 0) as api:
            await api.post("/banned", json={"as": "clientid", "who": "before"})
            standin.kill_node(NODES[1])
            assert (await asyncio.to_thread(lost.ended)).code is None
            rows = (await api.get("/nodes")).json()
            assert [row["node_status"] for row in rows] == ["running", "stopped", "running"]
            assert rows[1] == {"node": NODES[1], "node_status": "stopped", "role": "core"}
            assert (await api.get("/cluster")).json()["nodes"] == [NODES[0], NODES[2]]
            assert (await api.get("/clients/lost")).status_code == 404
            assert (await api.get("/clients/kept")).json()["connected"] is True
            assert (await api.get("/clients", params={"node": NODES[1]})).status_code == 500
            await api.post("/banned", json={"as": "clientid", "who": "meanwhile"})
        async with _api(standin, 1) as stopped_api:
            with pytest.raises(httpx.TransportError):
                await stopped_api.get("/nodes")
        await standin.restart_node(NODES[1])
        async with _api(standin, 1) as restarted_api:
            listed = (await restarted_api.get("/banned")).json()["data"]
            assert sorted(row["who"] for row in listed) == ["before", "meanwhile"]
        reconnected = await _connect(standin, 1, "lost", clean=False, expiry=3600)
        assert reconnected.connack is not None
        assert not reconnected.connack.session_present
        for probe in (lost, kept, reconnected):
            await asyncio.to_thread(probe.close)


async def test_restarting_a_running_node_does_nothing_and_an_unknown_node_cannot_be_killed() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        before = list(standin.mqtt_addresses)
        await standin.restart_node(NODES[0])
        assert standin.mqtt_addresses == before
        with pytest.raises(KeyError):
            standin.kill_node("emqx9@127.0.0.1")


def _until_stopped(url: str) -> str:
    with httpx.Client(base_url=url, auth=("cordon", SECRET), trust_env=False) as api:

        def status() -> str:
            return str(api.get("/api/v5/nodes").json()[1]["node_status"])

        wait_for(lambda: status() == "stopped", "the node is stopped")
        return status()


async def test_a_node_can_be_killed_over_http() -> None:
    async with (
        StandIn(StandInOptions(api_secret=SECRET, nodes=2)) as standin,
        httpx.AsyncClient(base_url=standin.api_urls[0], auth=("cordon", SECRET), trust_env=False) as http,
    ):
        assert (await http.post("/standin/kill/nosuch")).status_code == 404
        assert (await http.post(f"/standin/kill/{NODES[1]}")).status_code == 202
        assert await asyncio.to_thread(_until_stopped, standin.api_urls[0]) == "stopped"


def _client_tls(certs: Certs, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certs.ca))
    if name is not None:
        context.load_cert_chain(*certs.client(name))
    return context


async def test_a_tls_listener_requires_a_certificate_and_takes_the_client_id_from_it(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    options = StandInOptions(api_secret=SECRET, tls_ca=certs.ca, tls_cert=certs.server_cert, tls_key=certs.server_key)
    async with StandIn(options) as standin:
        host, port = standin.tls_addresses[0]
        endpoint = Endpoint(host, port, tls=_client_tls(certs, "edge-17"))
        device = await asyncio.to_thread(Probe(endpoint, "someone-else").enter)
        async with _api(standin, 0) as api:
            row = (await api.get("/clients/edge-17")).json()
            assert (row["clientid"], row["listener"]) == ("edge-17", "ssl:default")
            assert (await api.get("/clients/someone-else")).status_code == 404
            ssl_options = (await api.get("/listeners/ssl:default")).json()["ssl_options"]
            assert (ssl_options["verify"], ssl_options["fail_if_no_peer_cert"]) == ("verify_peer", True)
            zone = (await api.get("/configs/global_zone")).json()
            assert zone["mqtt"]["peer_cert_as_clientid"] == "cn"
        await asyncio.to_thread(device.leave)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await _first_byte(host, port, _client_tls(certs, None))


async def _first_byte(host: str, port: int, tls: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(CONNECT)
        return await reader.readexactly(1)
    finally:
        writer.close()


async def _exchange(standin: StandIn, *frames: bytes) -> list[Any]:
    """Sends frames and returns the packets that the broker sends until it closes."""
    reader, writer = await asyncio.open_connection(*standin.mqtt_addresses[0])
    try:
        for frame in frames:
            writer.write(frame)
        async with asyncio.timeout(5):
            data = await reader.read(65_536)
            while more := await reader.read(65_536):
                data += more
    except ConnectionError:
        return []
    finally:
        writer.close()
    return [decode(frame) for frame in FrameBuffer().feed(data)]


CONNECT = mqtt5.ConnectPacket("x", clean_start=True).write()


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((CONNECT, CONNECT), 130),
        ((CONNECT, b"\x36\x05\x00\x01a\x00\x01"), 129),
        ((CONNECT, b"\x30\xff\xff\xff\x7f"), 149),
        ((CONNECT, b"\x30\x06\x00\x03a/#\x00"), 144),
        ((CONNECT, mqtt5.PublishPacket("", b"", topic_alias=7).write()), 130),
        ((CONNECT, b"\x82\x0b\x00\x01\x00\x00\x05a/#/b\x01"), 143),
        ((CONNECT, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x05"), 130),
        ((CONNECT, mqtt5.DisconnectPacket(session_expiry_interval=60).write()), 130),
        ((CONNECT, mqtt5.PublishPacket("/".join("a" * 129), b"").write()), 144),
    ],
)
async def test_a_client_that_violates_the_protocol_is_disconnected(frames: tuple[bytes, ...], reason: int) -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        packets = await _exchange(standin, *frames)
        assert isinstance(packets[-1], mqtt5.DisconnectPacket)
        assert int(packets[-1].reason_code) == reason


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n" + b"x" * 80, b"\xc0\x00", b"\x10\x00", b"\xff\xff\xff\xff\xff\xff"]
)
async def test_a_connection_that_does_not_speak_mqtt_is_closed(data: bytes) -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        assert await _exchange(standin, data) == []


async def test_an_unknown_protocol_version_is_rejected() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        (connack,) = await _exchange(standin, b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01x")
        assert int(connack.reason_code) == 132


async def test_a_topic_alias_is_resolved_and_a_missing_client_id_assigned() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        packets = await _exchange(
            standin,
            mqtt5.ConnectPacket("", clean_start=True).write(),
            mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("a/b")], subscription_id=9).write(),
            mqtt5.PublishPacket("a/b", b"1", topic_alias=3).write(),
            mqtt5.PublishPacket("", b"2", topic_alias=3).write(),
            mqtt5.DisconnectPacket().write(),
        )
        connack, _, first, second = packets
        assert connack.assigned_client_id
        assert (connack.receive_max, connack.max_packet_size) == (32, 1_048_576)
        assert [(p.topic, p.payload, p.subscription_ids) for p in (first, second)] == [
            ("a/b", b"1", [9]),
            ("a/b", b"2", [9]),
        ]


async def test_a_silent_client_is_disconnected_after_1_5_keep_alive_intervals() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        packets = await _exchange(standin, mqtt5.ConnectPacket("x", clean_start=True, keep_alive=1).write())
        assert int(packets[-1].reason_code) == 141


async def test_changed_limits_apply_to_new_connections() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin, _api(standin, 0) as api:
        old = await _connect(standin, 0, "old")
        zone = (await api.get("/configs/global_zone")).json()
        zone["mqtt"] |= {"max_inflight": 500, "max_mqueue_len": 9}
        response = await api.put("/configs/global_zone", json=zone)
        assert (response.status_code, response.json()["mqtt"]["max_inflight"]) == (200, 500)
        new = await _connect(standin, 0, "new")
        rows = {row["clientid"]: row for row in (await api.get("/clients")).json()["data"]}
        assert [rows[name]["inflight_max"] for name in ("old", "new")] == [32, 500]
        assert [rows[name]["mqueue_max"] for name in ("old", "new")] == [1000, 9]
        rejected = await api.put("/configs/global_zone", json={"mqtt": {"max_inflight": 0}})
        assert rejected.status_code == 400
        for probe in (old, new):
            await asyncio.to_thread(probe.close)


async def test_the_presence_of_a_client_called_plus_is_delivered_and_the_client_stays() -> None:
    async with StandIn(StandInOptions(api_secret=SECRET)) as standin:
        watcher = await _connect(standin, 0, "watcher")
        older = await _connect(standin, 0, "older", version=4)
        for probe in (watcher, older):
            await asyncio.to_thread(probe.subscribe, "$SYS/brokers/+/clients/+/connected")
        odd = await _connect(standin, 0, "+")
        assert odd.connack is not None
        for probe in (watcher, older):
            message = await asyncio.to_thread(probe.message)
            assert message.topic == f"$SYS/brokers/{NODES[0]}/clients/+/connected"
        assert await asyncio.to_thread(odd.alive)
        for probe in (watcher, older, odd):
            await asyncio.to_thread(probe.close)
