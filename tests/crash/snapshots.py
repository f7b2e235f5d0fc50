"""Reads what the invariants are checked on: the store, the broker's tables, and what devices and an observer saw."""

import json
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import rules_of
from controller.adapters.sql import queries
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite import schema
from controller.adapters.sqlite.device_rows import page
from schemas.topics import ALL_UP
from tests.crash.invariants import Held, Kept, Seen
from tests.support.fleet_devices import MOST_DEVICES
from tests.support.simulated_fleet import SimulatedFleetProcess

MOST_LINES: Final = 10_000_000
_WAIT_SECONDS: Final = 10.0
_TELNET: Final = "demo/no-telnet"
_DOCKER: Final = "demo/no-open-docker-api"
_OPENSSL: Final = "demo/openssl-current"
OLD_OPENSSL: Final = "3.0.11-1~deb12u1"
NEW_OPENSSL: Final = "3.0.17-1~deb12u2"


def read_kept(path: Path) -> Kept:
    """Reads the store's file, whether or not a controller has it open."""
    with closing(schema.connect(path, StoreOptions(), read_only=True)) as connection:
        connection.execute("BEGIN")  # one moment for all tables
        lines = queries.audit(connection, {}, alerts_only=False, after=None, limit=MOST_LINES, newest_first=False)
        return Kept(
            devices={device.device_id: device for device in page(connection, "", MOST_DEVICES)},
            reports=dict(connection.execute("SELECT device_id, digest FROM reports").fetchall()),
            audit=lines,
            effects=queries.effects(connection),
            commands=dict(connection.execute("SELECT command_id, state FROM commands").fetchall()),
        )


async def read_held(api: EmqxApi) -> Held:
    """Reads the broker's rules and bans of clients."""
    bans = {row.who: row.ban() async for row in api.rows(requests.list_bans) if row.kind == "clientid"}
    return Held({row.clientid: rules_of(row) async for row in api.rows(requests.list_client_rules)}, bans)


def read_seen(fleet: SimulatedFleetProcess, failing: Mapping[str, frozenset[str]]) -> Seen:
    """What the devices observed so far; `failing` are broken rules by digest."""
    receipted: dict[str, tuple[int, str]] = {}
    sent: dict[str, tuple[int, str]] = {}
    taken: list[tuple[str, str]] = []
    log = fleet.observations
    for name in fleet.device_ids:
        digests = {int(one.data["seq"]): str(one.data["digest"]) for one in log.of(name, "report_sent", report="full")}
        if digests:
            sent[name] = max(digests.items())
        accepted = [int(one.data["seq"]) for one in log.of(name, "receipt", verdict="accepted")]
        if accepted:
            receipted[name] = (max(accepted), digests[max(accepted)])
        taken += [(name, str(one.data["command_id"])) for one in log.of(name, "command_taken")]
    return Seen(receipted, sent, taken, failing)


def broken_rules(sections: Mapping[str, Any]) -> frozenset[str]:
    """The rules of the pack `demo` that a simulated device breaks, found by plain comparisons."""
    ports = {socket["port"] for socket in sections["sockets"]["listening"]}
    found = {_TELNET} if 23 in ports else set()
    found |= {_DOCKER} if 2375 in ports else set()
    found |= {_OPENSSL} if sections["openssl"]["package"]["version"] == OLD_OPENSSL else set()
    return frozenset(found)


class ReportObserver:
    """Subscribes to every report and judges it independently; `failing` are broken rules by digest."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext, client_id: str) -> None:
        self.failing: dict[str, frozenset[str]] = {}
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.tls_set_context(tls)
        self._client.on_connect = lambda client, *_: client.subscribe(ALL_UP, 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._address = address

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        assert self._subscribed.wait(_WAIT_SECONDS), "the report observer could not subscribe"
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/up/posture"):
            report = json.loads(message.payload)
            if report["kind"] == "full":
                self.failing[report["digest"]] = broken_rules(report["sections"])
