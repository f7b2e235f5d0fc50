"""A fleet of simulated devices in one thread, with real connections.

Demonstrations and benchmarks use `SimulatedFleet(settings, observer)`; its methods may be called from any thread. The
observer is called in the fleet's thread and must return quickly.
"""

import contextlib
import heapq
import logging
import queue
import random
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import paho.mqtt.client as mqtt

from device_agent import __version__
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.report import ReportSender
from device_agent.errors import AgentError, SettingsError
from device_agent.host.clock import Clock
from device_agent.settings import MqttProtocol
from device_agent.simulator.connection import DEFAULT_BACKOFF, BrokerAccess, SimulatedConnection
from device_agent.simulator.device import DeviceBehaviour, SimulatedDevice
from device_agent.simulator.observations import ObservationKind, Observer
from device_agent.simulator.postures import Posture, PostureEdit, load
from device_agent.simulator.updates import ACTIONS as UPDATE_ACTIONS
from device_agent.simulator.updates import SimulatedUpdateOutcome
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from schemas.signing import parse_public_key

MAX_DEVICES: Final = 20_000
ACTIONS: Final = ("service.disable", "package.upgrade", "rescan", *UPDATE_ACTIONS)
_DIALLERS: Final = 8  # threads for opening sockets, which blocks
_KEEPALIVE_CHECK_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 5.0
_DEFAULT_BEHAVIOUR: Final = DeviceBehaviour()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The devices to simulate and their connection; times in seconds."""

    devices: int
    servers: tuple[BrokerAddress, ...]
    prefix: str = "sim-"
    protocol: MqttProtocol = "auto"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    cert_dir: Path | None = None
    """Folder with `{device id}.pem` and `{device id}.key` for each device."""
    username: str | None = None
    """May contain `{id}`."""
    password: str | None = field(default=None, repr=False)
    postures: Path | None = None
    controller_keys: tuple[str, ...] = ()
    allow: tuple[str, ...] = ACTIONS
    seed: int = 0
    behaviour: DeviceBehaviour = _DEFAULT_BEHAVIOUR
    keepalive: int = 30
    connect_timeout: float = 5.0
    backoff: Backoff = DEFAULT_BACKOFF

    def device_ids(self) -> list[str]:
        """Returns the device ids: the prefix and a number from 1, with at least three digits."""
        width = max(3, len(str(self.devices)))
        return [f"{self.prefix}{number:0{width}d}" for number in range(1, self.devices + 1)]


class UnknownDeviceError(AgentError):
    """The fleet has no device with that id."""


class SimulatedFleet:
    """Runs simulated devices from `start` to `stop`; also a context manager.

    Raises:
        SettingsError: too many devices, or an unusable file or key.
    """

    def __init__(self, settings: FleetSettings, observer: Observer) -> None:
        if not 1 <= settings.devices <= MAX_DEVICES:
            raise SettingsError(f"devices: between 1 and {MAX_DEVICES}")
        self.clock = Clock()
        self.settings = settings
        self._observer = observer
        # Seeded for repeatable runs; no secret depends on it.
        self._random = random.Random(settings.seed)  # noqa: S311 - see above
        self._connections: dict[str, SimulatedConnection] = {}
        self._make_devices(load(settings.postures))
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._writable: dict[str, SimulatedConnection] = {}
        self._dials: queue.SimpleQueue[SimulatedConnection | None] = queue.SimpleQueue()
        self._wake_out, self._wake_in = socket.socketpair()
        for end in (self._wake_out, self._wake_in):
            end.setblocking(False)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._diallers = [
            threading.Thread(target=self._dial, name=f"dial-{number}", daemon=True) for number in range(_DIALLERS)
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def device_ids(self) -> list[str]:
        """The ids of all devices."""
        return list(self._connections)

    @property
    def connected(self) -> int:
        """The number of connected devices."""
        return sum(connection.is_connected for connection in self._connections.values())

    def start(self) -> None:
        """Starts connecting all devices; returns immediately."""
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        for thread in (self._thread, *self._diallers):
            thread.start()
        for connection in self._connections.values():
            self._call(connection.connect)

    def stop(self) -> None:
        """Publishes offline, disconnects all devices and ends the threads."""
        if self._thread.is_alive():
            self._stop_threads()
        for resource in (self._selector, self._wake_out, self._wake_in):
            resource.close()

    def _stop_threads(self) -> None:
        for connection in self._connections.values():
            self._call(connection.disconnect)
        self._call(lambda: self.call_later(0.0, self._stop_when_disconnected))
        self._thread.join(_STOP_SECONDS)
        self._is_stopping.set()
        self._call(lambda: None)
        self._thread.join(_STOP_SECONDS)
        for _ in self._diallers:
            self._dials.put(None)
        for thread in self._diallers:
            thread.join(self.settings.connect_timeout + 1)

    def change(self, device_id: str, edit: PostureEdit) -> None:
        """Changes a device's posture; the device reports the change.

        Raises:
            UnknownDeviceError: there is no such device.
        """
        device = self._device(device_id)
        self._call(lambda: device.change(edit))

    def set_update_outcome(self, device_id: str, target: str, outcome: SimulatedUpdateOutcome) -> None:
        """Sets the outcome of a device's updates; see `SimulatedDevice.set_update_outcome`."""
        device = self._device(device_id)
        self._call(lambda: device.set_update_outcome(target, outcome))

    def rescan(self, device_id: str) -> None:
        """Makes a device send a full report, changed or not."""
        self._call(self._device(device_id).rescan)

    def silence(self, device_id: str, *, vanish: bool = False) -> None:
        """Makes a device send nothing while it stays connected or, with `vanish`, drops its connection for good."""
        device, connection = self._device(device_id), self._connection(device_id)
        self._call(connection.drop_and_stay_offline if vanish else lambda: device.set_silent(True))

    def unsilence(self, device_id: str) -> None:
        """Ends a silence of either kind."""
        device, connection = self._device(device_id), self._connection(device_id)
        self._call(lambda: device.set_silent(False))
        self._call(connection.reconnect)

    def drop_connection(self, device_id: str) -> None:
        """Closes a device's socket without DISCONNECT; the device reconnects."""
        self._call(self._connection(device_id).drop_connection)

    def send_telemetry(self, device_id: str) -> None:
        """Makes a device publish one telemetry message."""
        self._call(self._device(device_id).send_telemetry)

    # FleetLoop

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (self.clock.monotonic() + seconds, self._timer_number, callback))

    def start_dialling(self, connection: SimulatedConnection) -> None:
        self._dials.put(connection)

    def mark_writable(self, connection: SimulatedConnection) -> None:
        self._writable[connection.device_id] = connection

    def forget(self, connection: SimulatedConnection, sock: Any) -> None:
        self._writable.pop(connection.device_id, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def random(self) -> float:
        return self._random.random()

    def _make_devices(self, templates: list[Posture]) -> None:
        settings = self.settings
        try:
            keys = [parse_public_key(text) for text in settings.controller_keys]
        except ValueError as e:
            raise SettingsError(f"controller key: {e}") from e
        shared = None if settings.cert_dir else self._context(settings.certificate, settings.key)
        for number, device_id in enumerate(settings.device_ids()):
            tls = shared
            if settings.cert_dir is not None:
                tls = self._context(settings.cert_dir / f"{device_id}.pem", settings.cert_dir / f"{device_id}.key")
            access = BrokerAccess(
                settings.servers,
                protocol=settings.protocol,
                tls=tls,
                username=settings.username,
                password=settings.password,
                keepalive=settings.keepalive,
                connect_timeout=settings.connect_timeout,
                backoff=settings.backoff,
            )
            connection = SimulatedConnection(device_id, access, number, self, self._observer)
            posture = templates[number % len(templates)]
            sender = ReportSender(device_id, f"sim-{settings.seed}-{number}", f"{__version__}-simulated")
            verifier = CommandVerifier.from_keys(device_id, keys, settings.allow)
            connection.device = SimulatedDevice(sender, posture, templates[0], verifier, settings.behaviour, connection)
            self._connections[device_id] = connection

    def _context(self, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
        if not any(server.tls for server in self.settings.servers):
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.settings.ca) if self.settings.ca else None)
            if certificate is not None:
                context.load_cert_chain(certificate, key)
        except OSError as e:  # ssl.SSLError is one
            raise SettingsError(f"{certificate or self.settings.ca}: cannot be used for TLS: {e}") from e
        return context

    def _connection(self, device_id: str) -> SimulatedConnection:
        try:
            return self._connections[device_id]
        except KeyError as e:
            raise UnknownDeviceError(f"there is no device {device_id}") from e

    def _device(self, device_id: str) -> SimulatedDevice:
        device = self._connection(device_id).device
        assert device is not None
        return device

    def _call(self, callback: Callable[[], None]) -> None:
        self._calls.append(callback)
        # With a full pipe the loop wakes anyway; with a closed one it has ended.
        with contextlib.suppress(OSError):
            self._wake_in.send(b"x")

    def _dial(self) -> None:
        while (connection := self._dials.get()) is not None:
            self._call(partial(connection.dialled, *connection.dial()))

    def _run(self) -> None:
        interval = self.settings.behaviour.telemetry_every
        if interval > 0:
            for connection in self._connections.values():
                self.call_later(self.random() * interval, partial(self._send_telemetry_repeatedly, connection))
        self.call_later(_KEEPALIVE_CHECK_SECONDS, self._check_keepalives)
        while not self._is_stopping.is_set():
            self._flush()
            wait = max(0.0, self._timers[0][0] - self.clock.monotonic()) if self._timers else None
            for key, events in self._selector.select(0 if self._calls else wait):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_out.recv(4096)
                else:
                    self._serve(key.data, events)
            while self._calls:
                self._run_logged(self._calls.popleft())
            now = self.clock.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._run_logged(heapq.heappop(self._timers)[2])

    def _run_logged(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - a failing device must not stop the fleet
            _log.exception("a simulated device failed")

    def _serve(self, connection: SimulatedConnection, events: int) -> None:
        client = connection.client
        if client is None:
            return
        code: int = mqtt.MQTT_ERR_SUCCESS
        try:
            if events & selectors.EVENT_WRITE:
                self.mark_writable(connection)
            if events & selectors.EVENT_READ:
                code = client.loop_read()
                sock = client.socket()
                while code == mqtt.MQTT_ERR_SUCCESS and isinstance(sock, ssl.SSLSocket) and sock.pending():
                    code = client.loop_read()
                    sock = client.socket()
        except Exception as e:  # noqa: BLE001 - an invalid packet must end this connection only
            connection.observe(ObservationKind.UNREACHABLE, {"reason": f"{type(e).__name__}: {e}"})
            connection.drop_connection()
            return
        connection.served(code)

    def _flush(self) -> None:
        while self._writable:
            _, connection = self._writable.popitem()
            client = connection.client
            if client is None:
                continue
            code = client.loop_write() if client.want_write() else mqtt.MQTT_ERR_SUCCESS
            sock = client.socket()
            if code == mqtt.MQTT_ERR_SUCCESS and sock is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
                try:
                    self._selector.modify(sock, events, connection)
                except KeyError:
                    self._selector.register(sock, events, connection)
            connection.served(code)

    def _check_keepalives(self) -> None:
        self.call_later(_KEEPALIVE_CHECK_SECONDS, self._check_keepalives)
        for connection in self._connections.values():
            if connection.is_connected and connection.client is not None:
                connection.served(connection.client.loop_misc())

    def _send_telemetry_repeatedly(self, connection: SimulatedConnection) -> None:
        interval = self.settings.behaviour.telemetry_every
        self.call_later(interval, partial(self._send_telemetry_repeatedly, connection))
        if connection.device is not None:
            connection.device.send_telemetry()

    def _stop_when_disconnected(self) -> None:
        if any(connection.client is not None for connection in self._connections.values()):
            self.call_later(0.02, self._stop_when_disconnected)
        else:
            self._is_stopping.set()
