"""Gathers what the checks look at: the store's file, the broker's tables, and what the devices and a bystander saw."""

import json
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.sqlite import reader, schema
from controller.adapters.sqlite.options import StoreOptions
from controller.demo.observations import ObservationLog
from schemas.topics import ALL_UP
from tests.crash.invariants import Held, Kept, Seen

MOST_LINES: Final = 10_000_000
_WAIT_SECONDS: Final = 10.0
_TELNET: Final = "demo/no-telnet"
_DOCKER: Final = "demo/no-open-docker-api"
_OPENSSL: Final = "demo/openssl-current"
OLD_OPENSSL: Final = "3.0.11-1~deb12u1"
NEW_OPENSSL: Final = "3.0.17-1~deb12u2"


def read_kept(path: Path) -> Kept:
    """The store's file as it lies there, whether or not a controller has it open."""
    with closing(schema.connect(path, StoreOptions(), read_only=True)) as connection:
        connection.execute("BEGIN")  # one moment for all tables
        lines = reader.audit(connection, {}, alerts_only=False, after=0, limit=MOST_LINES, newest_first=False)
        return Kept(
            devices={device.device_id: device for device in reader.devices(connection)},
            reports=dict(connection.execute("SELECT device_id, digest FROM reports").fetchall()),
            audit=lines,
            effects=reader.effects(connection),
            commands=dict(connection.execute("SELECT command_id, state FROM commands").fetchall()),
        )


async def read_held(api: EmqxApi) -> Held:
    """The broker's rules and bans of clients."""
    bans = {ban.who: ban async for ban in api.bans() if ban.kind == "clientid"}
    return Held({client: rules async for client, rules in api.client_rules()}, bans)


def read_seen(chronicle: ObservationLog, device_ids: tuple[str, ...], failing: Mapping[str, frozenset[str]]) -> Seen:
    """What the devices told so far."""
    receipted: dict[str, tuple[int, str]] = {}
    sent: dict[str, tuple[int, str]] = {}
    taken: list[tuple[str, str]] = []
    for name in device_ids:
        digests = {
            int(sight.data["seq"]): str(sight.data["digest"])
            for sight in chronicle.of(name, "report_sent", report="full")
        }
        if digests:
            sent[name] = max(digests.items())
        accepted = [int(sight.data["seq"]) for sight in chronicle.of(name, "receipt", verdict="accepted")]
        if accepted:
            receipted[name] = (max(accepted), digests[max(accepted)])
        taken += [(name, str(sight.data["command_id"])) for sight in chronicle.of(name, "command_taken")]
    return Seen(receipted, sent, taken, failing)


def broken_rules(sections: Mapping[str, Any]) -> frozenset[str]:
    """Which rules of the demonstration's policy a simulated device breaks, judged here by plain comparisons."""
    ports = {socket["port"] for socket in sections["sockets"]["listening"]}
    found = {_TELNET} if 23 in ports else set()
    found |= {_DOCKER} if 2375 in ports else set()
    found |= {_OPENSSL} if sections["openssl"]["package"]["version"] == OLD_OPENSSL else set()
    return frozenset(found)


class Bystander:
    """Listens to every report on its way to the controller and judges it for itself; `failing` is by digest."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext, client_id: str) -> None:
        """Describe it."""
        self.failing: dict[str, frozenset[str]] = {}
        self._is_there = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.tls_set_context(tls)
        self._client.on_connect = lambda client, *_: client.subscribe(ALL_UP, 1)
        self._client.on_subscribe = lambda *_: self._is_there.set()
        self._client.on_message = self._heard
        self._address = address

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        if not self._is_there.wait(_WAIT_SECONDS):
            raise AssertionError("the bystander is not let in")
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _heard(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/up/posture"):
            report = json.loads(message.payload)
            if report["kind"] == "full":
                self.failing[report["digest"]] = broken_rules(report["sections"])
