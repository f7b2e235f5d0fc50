"""A fleet of simulated devices in one thread, over real connections.

`SimulatedFleet(settings, observer)` is the interface of demonstrations and benchmarks; its methods may be called from
any thread. The observer is called in the fleet's thread and must be quick.
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
from device_agent.simulator.observations import Observation, ObservationKind, Observer
from device_agent.simulator.postures import Posture, PostureEdit, load
from device_agent.simulator.updates import ACTIONS as UPDATE_ACTIONS
from device_agent.simulator.updates import SimulatedUpdateOutcome
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from schemas.signing import parse_public_key

MAX_DEVICES: Final = 20_000
ACTIONS: Final = ("service.disable", "package.upgrade", "rescan", *UPDATE_ACTIONS)
_DIALLERS: Final = 8  # threads that open sockets, which blocks
_CARE_SECONDS: Final = 5.0  # between looks at keep-alives
_STOP_SECONDS: Final = 5.0
_HABITS: Final = DeviceBehaviour()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What to simulate; seconds."""

    devices: int
    servers: tuple[BrokerAddress, ...]
    prefix: str = "sim-"
    protocol: MqttProtocol = "auto"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    cert_dir: Path | None = None
    """Holds `{device id}.pem` and `{device id}.key` for each device."""
    username: str | None = None
    """May hold `{id}`."""
    password: str | None = field(default=None, repr=False)
    postures: Path | None = None
    controller_keys: tuple[str, ...] = ()
    allow: tuple[str, ...] = ACTIONS
    seed: int = 0
    habits: DeviceBehaviour = _HABITS
    keepalive: int = 30
    connect_timeout: float = 5.0
    backoff: Backoff = DEFAULT_BACKOFF

    def device_ids(self) -> list[str]:
        """The names of the devices: the prefix and a number from 1, of at least three digits."""
        width = max(3, len(str(self.devices)))
        return [f"{self.prefix}{number:0{width}d}" for number in range(1, self.devices + 1)]


class UnknownDeviceError(AgentError):
    """The fleet has no device of that name."""


class SimulatedFleet:
    """Simulated devices from `start` to `stop`; also a context manager."""

    def __init__(self, settings: FleetSettings, observer: Observer) -> None:
        """Prepare the fleet.

        Raises:
            SettingsError: too many devices, or a file or key that cannot be used.
        """
        if not 1 <= settings.devices <= MAX_DEVICES:
            raise SettingsError(f"devices: between 1 and {MAX_DEVICES}")
        self.clock = Clock()
        self.settings = settings
        self._observer = observer
        # Only to make a run repeatable; nothing secret comes from it.
        self._random = random.Random(settings.seed)  # noqa: S311 - see above
        self._connections: dict[str, SimulatedConnection] = {}
        self._make_devices(load(settings.postures))
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._marked: dict[str, SimulatedConnection] = {}
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
        """Every device's name."""
        return list(self._connections)

    @property
    def connected(self) -> int:
        """How many devices are connected now."""
        return sum(connection.is_connected for connection in self._connections.values())

    def start(self) -> None:
        """Connect all; returns at once."""
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        for thread in (self._thread, *self._diallers):
            thread.start()
        for connection in self._connections.values():
            self._call(connection.begin)

    def stop(self) -> None:
        """Say offline, disconnect all, end the threads."""
        if self._thread.is_alive():
            self._stop_threads()
        for resource in (self._selector, self._wake_out, self._wake_in):
            resource.close()

    def _stop_threads(self) -> None:
        for connection in self._connections.values():
            self._call(connection.leave)
        self._call(lambda: self.later(0.0, self._finish_when_empty))
        self._thread.join(_STOP_SECONDS)
        self._is_stopping.set()
        self._call(lambda: None)
        self._thread.join(_STOP_SECONDS)
        for _ in self._diallers:
            self._dials.put(None)
        for thread in self._diallers:
            thread.join(self.settings.connect_timeout + 1)

    def change(self, device_id: str, edit: PostureEdit) -> None:
        """Change a device's posture, which it reports at once.

        Raises:
            UnknownDeviceError: there is none of that name.
        """
        device = self._device(device_id)
        self._call(lambda: device.change(edit))

    def update_ends(self, device_id: str, target: str, outcome: SimulatedUpdateOutcome) -> None:
        """Have updates of a device end so from now on; see `SimulatedDevice.update_ends`."""
        device = self._device(device_id)
        self._call(lambda: device.update_ends(target, outcome))

    def rescan(self, device_id: str) -> None:
        """Have a device send a full report, changed or not."""
        self._call(self._device(device_id).rescan)

    def go_silent(self, device_id: str, *, vanish: bool = False) -> None:
        """Have a device say nothing more: still connected, or (`vanish`) with its socket cut and no return."""
        device, connection = self._device(device_id), self._connection(device_id)
        self._call(connection.vanish if vanish else lambda: device.silence(True))

    def speak(self, device_id: str) -> None:
        """End a silence of either kind."""
        device, connection = self._device(device_id), self._connection(device_id)
        self._call(lambda: device.silence(False))
        self._call(connection.come_back)

    def cut(self, device_id: str) -> None:
        """Close a device's socket without a word; it connects again."""
        self._call(self._connection(device_id).cut)

    def send_telemetry(self, device_id: str) -> None:
        """Have a device publish one message of the fleet's own work now."""
        self._call(self._device(device_id).telemetry)

    # What connections need; from the loop's thread, but `mark` from any.

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do `act` after `seconds`."""
        self._timer_number += 1
        heapq.heappush(self._timers, (self.clock.monotonic() + seconds, self._timer_number, act))

    def connect(self, connection: SimulatedConnection) -> None:
        """Open a connection in a thread that may block."""
        self._dials.put(connection)

    def mark(self, connection: SimulatedConnection) -> None:
        """A connection has something to write."""
        self._marked[connection.device_id] = connection

    def forget(self, connection: SimulatedConnection, sock: Any) -> None:
        """A socket is about to be closed."""
        self._marked.pop(connection.device_id, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def chance(self) -> float:
        """An even draw from [0, 1)."""
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
            guard = CommandVerifier.of(device_id, keys, settings.allow)
            connection.device = SimulatedDevice(sender, posture, templates[0], guard, settings.habits, connection)
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

    def _call(self, act: Callable[[], None]) -> None:
        self._calls.append(act)
        # A full pipe means that it wakes anyway, a closed one that it is over.
        with contextlib.suppress(OSError):
            self._wake_in.send(b"x")

    def _dial(self) -> None:
        while (connection := self._dials.get()) is not None:
            client, why = connection.dial()
            taken = connection
            self._call(lambda taken=taken, client=client, why=why: taken.dialled(client, why))  # type: ignore[misc]  # bound now

    def _run(self) -> None:
        if self.settings.habits.telemetry_every > 0:
            for connection in self._connections.values():
                self.later(self.chance() * self.settings.habits.telemetry_every, self._telemetry_of(connection))
        self.later(_CARE_SECONDS, self._care)
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
                self._guarded(self._calls.popleft())
            now = self.clock.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._guarded(heapq.heappop(self._timers)[2])

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:  # noqa: BLE001 - logged whole, see below
            # One device's trouble, such as an edit that makes no posture, is not the fleet's.
            _log.exception("a simulated device failed")

    def _serve(self, connection: SimulatedConnection, events: int) -> None:
        client = connection.client
        if client is None:
            return
        code: int = mqtt.MQTT_ERR_SUCCESS
        try:
            if events & selectors.EVENT_WRITE:
                self.mark(connection)
            if events & selectors.EVENT_READ:
                code = client.loop_read()
                sock = client.socket()
                while code == mqtt.MQTT_ERR_SUCCESS and isinstance(sock, ssl.SSLSocket) and sock.pending():
                    code = client.loop_read()
                    sock = client.socket()
        except Exception as e:  # noqa: BLE001 - whatever a broker sends ends one connection only
            connection.observe(ObservationKind.UNREACHABLE, {"reason": f"{type(e).__name__}: {e}"})
            connection.cut()
            return
        connection.served(code)

    def _flush(self) -> None:
        while self._marked:
            _, connection = self._marked.popitem()
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

    def _care(self) -> None:
        self.later(_CARE_SECONDS, self._care)
        for connection in self._connections.values():
            if connection.is_connected and connection.client is not None:
                connection.served(connection.client.loop_misc())

    def _telemetry_of(self, connection: SimulatedConnection) -> Callable[[], None]:
        def send() -> None:
            self.later(self.settings.habits.telemetry_every, send)
            if connection.device is not None:
                connection.device.telemetry()

        return send

    def _finish_when_empty(self) -> None:
        if any(connection.client is not None for connection in self._connections.values()):
            self.later(0.02, self._finish_when_empty)
        else:
            self._is_stopping.set()


__all__ = [
    "DeviceBehaviour",
    "FleetSettings",
    "Observation",
    "ObservationKind",
    "PostureEdit",
    "SimulatedFleet",
    "UnknownDeviceError",
]
