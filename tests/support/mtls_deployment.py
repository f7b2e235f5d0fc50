"""A controller with an authority, a stand-in whose TLS listeners trust it, and devices made of the agent's parts."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from controller.api.client import ApiClient, ApiEndpoint
from controller.domain.identity.certificates import CertificateKind
from device_agent.host.clock import Clock
from device_agent.identity.enrol import EnrolmentOptions, config_text, enrol
from device_agent.identity.renewal import CertificateRenewer, load_renewal
from device_agent.identity.store import load_active
from device_agent.mqtt_client import MqttClient, StatusPayloads
from schemas.events import Status
from schemas.posture import digest_of
from schemas.topics import DownChannel, UpChannel
from tests.support.identity import Files
from tests.support.mosquitto import free_port
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

WAIT: Final = 40.0  # seconds
CONTROLLER: Final = "cordon-controller"
_SECTIONS: Final[dict[str, Any]] = {
    "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1", "machine": "x86_64"}
}


class _Tls:
    """The files that the stand-in needs."""

    def __init__(self, files: Files) -> None:
        server = files.issue("127.0.0.1", CertificateKind.SERVER, ["127.0.0.1", "localhost"])
        self.ca, self.server_cert, self.server_key = files.ca, server.chain, server.key


class MutualTlsDeployment:
    """Stand-in and controller run while its `with` block does; `client` calls the API as an operator."""

    def __init__(
        self,
        folder: Path,
        *,
        device_lifetime: str = "30d",
        readmit_after: str = "0s",
        nodes: int = 1,
        more: str = "",
        open_files: int | None = None,
        rewrite: Callable[[str], str] = str,
    ) -> None:
        """`more`: further TOML of the controller's configuration; `open_files`: how many it may open; `rewrite`:
        changes the configuration before the start.
        """
        self._rewrite = rewrite
        self._open_files = open_files
        self.folder = folder
        self.files = Files(folder / "authority", time.time())
        tls: Any = _Tls(self.files)
        self.emqx = StandInProcess(nodes=nodes, certs=tls)
        self._settings = f'device_lifetime = "{device_lifetime}"\nreadmit_after = "{readmit_after}"\n{more}'
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.list_port = free_port()
        self.config = folder / "cordon" / "cordon.toml"

    def __enter__(self) -> Self:
        self.emqx.__enter__()
        try:
            self._prepare()
            self._serve()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            code = self._process.wait(WAIT)
            assert code == 0 or error is not None, f"the controller ended with {code}:\n{self.log[-6000:]}"
            assert self._process.stdout is not None
            self._process.stdout.close()
        if error is not None:
            error.add_note(f"the controller's log:\n{self.log[-6000:]}")
        self.emqx.__exit__(kind, error, trace)

    @property
    def log(self) -> str:
        """The controller's log so far."""
        path = self.folder / "serve.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _prepare(self) -> None:
        home = self.folder / "cordon"
        own = self.files.issue(CONTROLLER)
        argv = [sys.executable, "-m", "controller.main", "init", "--dir", str(home), "--no-broker", "--listen"]
        argv += ["127.0.0.1:0", "--client-id", CONTROLLER, "--emqx-key", self.emqx.key, "--mqtt-ca", str(self.files.ca)]
        argv += ["--mqtt-cert", str(own.chain), "--mqtt-key", str(own.key)]
        for host, port in self.emqx.tls:
            argv += ["--mqtt", f"mqtts://{host}:{port}"]
        for url in self.emqx.api_urls:
            argv += ["--emqx", url]
        # As `cordon broker setup` does: this broker also has listeners at which any id may connect.
        ban = {"as": "clientid", "who": "+", "by": "tests", "reason": "a wildcard", "until": "infinity"}
        url = f"{self.emqx.api_urls[0]}/api/v5/banned"
        httpx.post(url, json=ban, auth=(self.emqx.key, self.emqx.secret)).raise_for_status()
        environment = {**os.environ, "CORDON_EMQX_SECRET": self.emqx.secret}
        subprocess.run(argv, check=True, capture_output=True, env=environment)
        api = self.files.issue("127.0.0.1", CertificateKind.SERVER, ["127.0.0.1"])
        text = self.config.read_text().replace(
            "[api]\n", f"[api]\ncertificate = {json.dumps(str(api.chain))}\nkey = {json.dumps(str(api.key))}\n"
        )
        folder = json.dumps(str(self.folder / "authority" / "ca"))
        text += f'\n[authority]\nfolder = {folder}\ncrl_listen = "127.0.0.1:{self.list_port}"\n{self._settings}'
        self.config.write_text(self._rewrite(text))

    def _serve(self) -> None:
        with (self.folder / "serve.log").open("ab") as log:
            argv = [sys.executable, "-m", "controller.main", "serve", "--config", str(self.config)]
            if self._open_files is not None:
                argv = ["sh", "-c", f'ulimit -n {self._open_files} && exec "$@"', "sh", *argv]
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the controller did not start:\n{self.log[-6000:]}"
        self.url = str(json.loads(line)["api"])

    @property
    def pid(self) -> int:
        """The controller's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def client(self) -> ApiClient:
        token = (self.folder / "cordon" / "operator.token").read_text().strip()
        return ApiClient(ApiEndpoint(self.url, token, self.files.ca))

    def token(self, **wanted: Any) -> str:
        """Makes an enrolment token."""
        return str(self.client.call("POST", "/enrolment/tokens", wanted)["token"])

    def device(self, name: str, token: str, *, folder: str = "", passphrase: str | None = None) -> "EnrolledDevice":
        """Enrols a device, which is not connected yet; its keys are encrypted if there is a passphrase."""
        return EnrolledDevice(self, name, token, self.folder / "devices" / (folder or name), passphrase)


class EnrolledDevice:
    """One device: the agent's parts without scan and commands. `events`: monotonic seconds, and "up" or "down"."""

    def __init__(
        self, deployment: MutualTlsDeployment, name: str, token: str, folder: Path, passphrase: str | None = None
    ) -> None:
        self.name = name
        self.folder = folder
        self.events: list[tuple[float, str]] = []
        wish = EnrolmentOptions(
            deployment.url, token, deployment.files.authority.info.fingerprint, name, folder, passphrase
        )
        self.answer = enrol(wish)
        words = None if passphrase is None else folder / "words"
        if words is not None:
            words.touch(mode=0o600)
            words.write_text(f"{passphrase}\n")
        text = config_text(name, folder, self.answer, None if words is None else str(words))
        text += f"[agent]\nstate_dir = {json.dumps(str(folder / 'state'))}\n"
        (folder / "agent.toml").write_text(text)
        self._seq = int(time.time())
        self._link: MqttClient | None = None
        self._renewing: CertificateRenewer | None = None
        self._is_up = threading.Event()

    def start(self) -> None:
        """Connects with the current key pair, as the agent does."""
        settings = load_active(self.folder / "agent.toml")
        will = Status(state="offline").model_dump_json().encode()
        self._renewing, credentials = load_renewal(settings, Clock(), lambda _current: None)
        goodbye = StatusPayloads(
            will_payload=will,
            online_payload=lambda: Status(state="online").model_dump_json().encode(),
            offline_payload=lambda: will,
        )
        self._link = MqttClient(self.name, settings.mqtt, None, goodbye, self, credentials=credentials)
        self._link.start()

    def stop(self) -> None:
        """Disconnects."""
        if self._link is not None:
            self._link.stop()

    def step(self) -> None:
        """Renews the certificate if it is time, as the agent's report thread does."""
        if self.is_up and self._renewing is not None and self._link is not None:
            self._renewing.step(self._link)

    def report(self, ports: Sequence[int] = ()) -> None:
        """Publishes a full report: one that passes, or with TCP ports that listen on all addresses."""
        self._seq += 1
        sections = dict(_SECTIONS)
        if ports:
            listening = [{"proto": "tcp", "address": "0.0.0.0", "port": port, "process": "p"} for port in ports]
            sections["sockets"] = {"state": "ok", "listening": listening, "truncated": 0}
        body = {
            "v": 1, "kind": "full", "device_id": self.name, "seq": self._seq, "agent": "1.0", "boot_id": "b",
            "sent_at": datetime.now(UTC).isoformat(), "digest": digest_of(sections), "sections": sections,
        }  # fmt: skip
        assert self._link is not None
        self._link.publish(UpChannel.POSTURE, json.dumps(body).encode())

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""
        return self._is_up.is_set()

    @property
    def refusals(self) -> int:
        """How often the broker refused its CONNECT."""
        return 0 if self._link is None else self._link.refusals

    @property
    def current(self) -> Path:
        """The path of its renewed key pair."""
        return self.folder / "state" / "identity" / "current.pem"

    def on_connected(self) -> None:
        self.events.append((time.monotonic(), "up"))
        self._is_up.set()

    def on_disconnected(self) -> None:
        self._is_up.clear()
        self.events.append((time.monotonic(), "down"))

    def on_message(self, channel: DownChannel, payload: bytes) -> None:
        if channel is DownChannel.CERTIFICATE and self._renewing is not None:
            assert self._link is not None
            self._renewing.on_answer(payload, self._link)


def wait_for_devices(
    devices: Iterable[EnrolledDevice], check: Callable[[], object], what: str, seconds: float = WAIT
) -> None:
    """Waits until `check` is true, while the devices renew their certificates."""
    stepped = list(devices)

    def step_and_check() -> object:
        for device in stepped:
            device.step()
        return check()

    wait_for(step_and_check, what, seconds)
