"""How many messages a second the link takes, against paho with the plainest hooks on the same loop.

`python -m tests.bench.link_rate [--messages 30000] [--bytes 1700] [--rounds 3] [--tls]`: a mosquitto holds a backlog in
a persistent session; each side drains it, in turns, and the best round of each counts.

(a) paho, socket callbacks on the loop, automatic acknowledgement, messages dropped in the callback;
(b) `PahoMessages.receive` and `acknowledge`.
"""

import argparse
import asyncio
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import uvloop
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from controller.adapters.mqtt.messages import PahoMessages
from controller.adapters.mqtt.options import MqttOptions
from schemas.topics import ALL_UP, UpChannel, up
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto

CLIENT_ID = "bench-controller"
DEVICES = 500
RECEIVE_MAXIMUM = 1000
BATCH = 500
UNLIMITED = "max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nset_tcp_nodelay true"


@dataclass(frozen=True, slots=True)
class Harness:
    """Where the broker is, and who we are there."""

    port: int
    certs: Certs | None

    def files(self) -> tuple[Path, Path, Path] | None:
        """Authority, certificate, key."""
        return None if self.certs is None else (self.certs.ca, *self.certs.client(CLIENT_ID))


def new_client(client_id: str) -> paho.Client:
    return paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)


def kept_session() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # not annotated in paho
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    return properties


def preload(port: int, messages: int, size: int) -> None:
    """Leave a session with a backlog at the broker."""
    subscriber = new_client(CLIENT_ID)
    subscriber.on_connect = lambda client, *_rest: client.subscribe(ALL_UP, 1)
    subscriber.on_subscribe = lambda client, *_rest: client.disconnect()
    subscriber.connect("127.0.0.1", port, clean_start=True, properties=kept_session())
    subscriber.loop_forever()
    publisher = new_client("bench-publisher")
    publisher.max_inflight_messages_set(0)
    publisher.connect("127.0.0.1", port)
    publisher.loop_start()
    payload = b"x" * size
    infos = [publisher.publish(up(f"dev-{n % DEVICES}", UpChannel.POSTURE), payload, qos=1) for n in range(messages)]
    for info in infos:
        info.wait_for_publish(120)
    publisher.disconnect()
    publisher.loop_stop()


async def drain_bare(harness: Harness, messages: int) -> float:
    """Gives the time of the last message."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    count = 0

    def on_message(_client: paho.Client, _userdata: object, _message: paho.MQTTMessage) -> None:
        nonlocal count
        count += 1
        if count == messages:
            done.set()

    client = new_client(CLIENT_ID)
    files = harness.files()
    if files is not None:
        context = ssl.create_default_context(cafile=files[0])
        context.load_cert_chain(files[1], files[2])
        client.tls_set_context(context)
    client.on_message = on_message
    await loop.run_in_executor(
        None, lambda: client.connect("127.0.0.1", harness.port, clean_start=False, properties=kept_session())
    )
    sock = client.socket()
    assert sock is not None
    fd = sock.fileno()

    def stop_writing(*_ignored: object) -> None:
        loop.remove_writer(fd)

    client.on_socket_register_write = lambda *_: loop.add_writer(fd, client.loop_write)
    client.on_socket_unregister_write = stop_writing

    def read() -> None:
        client.loop_read()
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            client.loop_read()

    loop.add_reader(fd, read)
    await done.wait()
    last = time.perf_counter()
    loop.remove_reader(fd)
    client.on_socket_register_write = None
    client.disconnect()
    while client.socket() is not None:
        client.loop_write()
        client.loop_read()
    return last


async def drain_link(harness: Harness, messages: int) -> float:
    """Gives the time of the last message."""
    files = harness.files()
    ca, certificate, key = files or (None, None, None)
    options = MqttOptions(
        servers=(f"{'mqtts' if files else 'mqtt'}://127.0.0.1:{harness.port}",),
        client_id=CLIENT_ID,
        protocol="5",
        receive_maximum=RECEIVE_MAXIMUM,
        ca=ca,
        certificate=certificate,
        key=key,
    )
    link = PahoMessages(options, rand=lambda: 0.5, log=lambda _event, _fields: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        left = messages
        while left:
            batch = await link.receive(BATCH)
            link.acknowledge(batch)
            left -= len(batch)
        last = time.perf_counter()
        await asyncio.sleep(0.05)  # the last PUBACKs leave
        running.cancel()
    return last


def measure(
    what: Callable[[Harness, int], Coroutine[None, None, float]], harness: Harness, messages: int
) -> tuple[float, float]:
    """Messages a second, and CPU microseconds a message."""
    before, cpu = time.perf_counter(), time.process_time()
    last = uvloop.run(what(harness, messages))
    return messages / (last - before), (time.process_time() - cpu) / messages * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--bytes", type=int, default=1_700)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--only", choices=["bare", "link"])
    chosen = parser.parse_args()
    ways = {"bare": drain_bare, "link": drain_link}
    best = dict.fromkeys(ways, (0.0, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        certs = Certs(Path(folder)) if chosen.tls else None
        with Mosquitto(tls=certs, extra_conf=UNLIMITED, tls_conf="") as broker:
            harness = Harness(broker.tls_port if certs else broker.port, certs)
            for _ in range(chosen.rounds):
                for name, way in ways.items():
                    if chosen.only in {None, name}:
                        preload(broker.port, chosen.messages, chosen.bytes)
                        best[name] = max(best[name], measure(way, harness, chosen.messages))
    for name, (rate, cpu) in best.items():
        print(f"{name}: {rate:,.0f} messages/s, {cpu:.1f} us of CPU each")
    if best["bare"][0]:
        print(f"link/bare: {best['link'][0] / best['bare'][0]:.2f}")


if __name__ == "__main__":
    main()
