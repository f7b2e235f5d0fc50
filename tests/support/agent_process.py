"""Shared by integration tests of the agent: a fake controller, a proxy, an agent as a process."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion

from schemas import topics
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import public_key_text, sign
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto

WAIT: Final = 20.0  # seconds until a test fails; no measurement
DEVICE: Final = "edge-1"


class FakeController:
    """Records all messages of devices; answers full reports with `verdict` (None: no receipt)."""

    def __init__(self, host: str, port: int, verdict: str | None = "accepted") -> None:
        self.verdict = verdict
        self.reads_deltas = False  # as an older controller
        self.key = Ed25519PrivateKey.generate()
        self.public_key = public_key_text(self.key.public_key())
        self.messages: list[tuple[str, dict[str, Any], bool]] = []
        self._counter = 0
        self._is_subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="controller", protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(topics.ALL_UP, 1)
        self._client.on_subscribe = lambda *_: self._is_subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(host, port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._is_subscribed.wait(WAIT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("\n".join(f"{topic} {payload}" for topic, payload, _ in self.messages[-40:]))
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        payload = json.loads(message.payload)
        self.messages.append((message.topic, payload, message.retain))
        is_full = message.topic.endswith("/posture") and payload["kind"] == "full"
        is_delta = message.topic.endswith("/posture") and payload["kind"] == "delta"
        if is_delta and not self.reads_deltas:
            self.receipt(payload["device_id"], payload["seq"], "rejected", reason="unknown_kind")
        elif (is_full or is_delta) and self.verdict is not None:
            self.receipt(payload["device_id"], payload["seq"], self.verdict)

    def receipt(self, device_id: str, seq: int | None, verdict: str, **more: Any) -> None:
        """Sends a receipt."""
        self.publish(
            topics.down(device_id, topics.DownChannel.RECEIPT), {"v": 1, "seq": seq, "verdict": verdict, **more}
        )

    def publish(self, topic: str, payload: dict[str, Any] | bytes) -> None:
        """Publishes a message."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        # Does not wait for the PUBACK: a receipt is sent from the thread of the client.
        self._client.publish(topic, raw, qos=1)

    def envelope(self, action: str, *, command_id: str = "", device_id: str = DEVICE, **params: Any) -> bytes:
        """Returns a signed command with the next counter."""
        self._counter += 1
        now = datetime.now(UTC)
        command = Command(
            command_id=command_id or f"c{self._counter}",
            device_id=device_id,
            action=action,
            params=params,
            issued_at=now,
            expires_at=now + timedelta(minutes=5),
            counter=self._counter,
        )
        return sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, self.key)

    def command(self, envelope: bytes, device_id: str = DEVICE) -> None:
        """Sends an envelope to a device."""
        self.publish(topics.down(device_id, topics.DownChannel.COMMAND), envelope)

    def of(self, channel: str) -> list[dict[str, Any]]:
        """Returns the messages of one channel."""
        return [payload for topic, payload, _ in self.messages if topic.endswith(f"/{channel}")]

    def full(self) -> list[dict[str, Any]]:
        """Returns the received full reports."""
        return [report for report in self.of("posture") if report["kind"] == "full"]

    def deltas(self) -> list[dict[str, Any]]:
        """Returns the received deltas."""
        return [report for report in self.of("posture") if report["kind"] == "delta"]

    def heartbeats(self) -> list[dict[str, Any]]:
        """Returns the received heartbeats."""
        return [report for report in self.of("posture") if report["kind"] == "heartbeat"]

    def ends(self) -> list[dict[str, Any]]:
        """Returns the final results."""
        return [result for result in self.of("result") if result["state"] != "executing"]


class ThreadedProxy:
    """A TCP proxy before a broker that can reset its connections and refuse new ones."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.is_open = True
        self._pairs: list[socket.socket] = []
        self._mutex = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()

    def cut(self) -> None:
        """Resets every connection, as a failing network does."""
        with self._mutex:
            pairs, self._pairs = self._pairs, []
        for end in pairs:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for end in pairs:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if not self.is_open:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._mutex:
                self._pairs += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


class AgentProcess:
    """`cordon-agent run` as a process; a failing test shows its log."""

    def __init__(self, config: Path, *, is_light: bool = True, die_at: str = "") -> None:
        """`is_light`: with the collectors and actions of `light_agent`; `die_at`: the step at which it kills itself."""
        self._config = config
        self.is_light = is_light
        self.die_at = die_at
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if error is not None:
            error.add_note(f"log of the agent:\n{self.log[-8000:]}")

    def start(self) -> None:
        """Starts the process, also again."""
        with self._log.open("ab") as log:
            argv = [sys.executable, "-m", "device_agent.main", "run", "--config", str(self._config)]
            if self.is_light:
                argv = [sys.executable, "-m", "tests.support.light_agent", str(self._config), self.die_at]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal, and returns the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(WAIT)

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def write_config(
    folder: Path,
    servers: list[str],
    *,
    certs: Certs | None = None,
    keys: str = "",
    mqtt_more: str = "",
    report: str = "",
) -> Path:
    """Writes an agent.toml for `DEVICE` with short intervals; its state is in `folder`/state."""
    tls = ""
    if certs is not None:
        cert, key = certs.client(DEVICE)
        tls = f'ca = "{certs.ca}"\ncertificate = "{cert}"\nkey = "{key}"\n'
    path = folder / "agent.toml"
    path.write_text(
        f'device_id = "{DEVICE}"\n[mqtt]\nservers = {json.dumps(servers)}\n{tls}{mqtt_more}\n'
        f'[report]\nscan_every = "1h"\nheartbeat_every = "300ms"\nreceipt_timeout = "1s"\n{report}\n'
        f"[commands]\ncontroller_keys = [{json.dumps(keys) if keys else ''}]\n"
        f'allow = ["rescan", "service.disable", "test.append", "test.once"]\n'
        f'[agent]\nstate_dir = "{folder / "state"}"\n'
    )
    return path


@contextmanager
def broker_with_controller(certs: Certs | None = None, **options: Any) -> Iterator[tuple[Mosquitto, FakeController]]:
    """Yields a broker, and a controller that records all messages."""
    with Mosquitto(tls=certs, **options) as broker, FakeController(broker.host, broker.port) as controller:
        yield broker, controller
