"""A real mosquitto broker for tests, on free ports, stopped by its own `with` block.

`with Mosquitto() as broker:` gives a plain listener at `broker.host`, `broker.port`; with `tls=certs` also a TLS
listener at `broker.tls_port` that requires a client certificate and takes the user name from its common name.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.certs import Certs

_CACHED: Final = Path(__file__).resolve().parents[2] / ".cache" / "mosquitto" / "mosquitto"
_FETCH: Final = Path(__file__).resolve().parents[2] / "tools" / "get-mosquitto.sh"
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
_PORT_RACES: Final = 5  # attempts


def mosquitto_binary() -> Path:
    """The installed program, or the one that tools/get-mosquitto.sh unpacks.

    Raises:
        RuntimeError: there is none, and none can be fetched.
    """
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is not None:
        return Path(found)
    if not _CACHED.exists():
        done = subprocess.run([str(_FETCH)], capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"mosquitto is needed and could not be fetched:\n{done.stdout}{done.stderr}")
    return _CACHED


def free_port() -> int:
    """A TCP port that is free now; another process may take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mosquitto:
    """One broker process; `stop` and `start` keep its ports and, with `persistence`, its sessions."""

    host: Final = "127.0.0.1"

    def __init__(
        self, *, tls: Certs | None = None, extra_conf: str = "", tls_conf: str = "", persistence: bool = False
    ) -> None:
        """Prepares it.

        Args:
            tls: adds the TLS listener with this authority.
            extra_conf: lines for the whole broker and, as they follow it, for the plain listener.
            tls_conf: lines for the TLS listener.
            persistence: sessions and retained messages outlive `stop` (saved by SIGTERM).
        """
        self._tls = tls
        self._extra_conf = extra_conf
        self._tls_conf = tls_conf
        self._persistence = persistence
        self._folder = Path(tempfile.mkdtemp(prefix="mosquitto-test-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.tls_port = 0

    @property
    def log(self) -> str:
        """The broker's log so far."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def __enter__(self) -> Self:
        for attempt in range(_PORT_RACES):
            self.port, self.tls_port = free_port(), free_port()
            try:
                self.start()
            except RuntimeError:
                if "Address already in use" not in self.log or attempt == _PORT_RACES - 1:
                    raise
            else:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            error.add_note(f"mosquitto said:\n{self.log[-8000:]}")
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it on its ports, and waits until they accept connections.

        Raises:
            RuntimeError: it ended or did not accept in time; with its log.
        """
        assert self._process is None, "the broker is running already"
        conf = self._folder / "mosquitto.conf"
        conf.write_text(self._configuration())
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([mosquitto_binary(), "-v", "-c", conf], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        ports = [self.port, self.tls_port] if self._tls else [self.port]
        while ports:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"mosquitto did not start:\n{self.log[-8000:]}")
            ports = [port for port in ports if not self._answers(port)]
            time.sleep(0.005)

    def stop(self, *, kill: bool = False) -> None:
        """Stops it by SIGTERM or SIGKILL, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.host, port)) == 0

    def _configuration(self) -> str:
        lines = ["log_dest stderr", "connection_messages true", "per_listener_settings true", "set_tcp_nodelay true"]
        if self._persistence:
            lines += ["persistence true", f"persistence_location {self._folder}/"]
        # As root it would switch to the user `mosquitto`, who may not exist and cannot read the keys.
        lines += ["user root", f"listener {self.port} {self.host}", "allow_anonymous true", self._extra_conf]
        if self._tls is not None:
            lines += [
                f"listener {self.tls_port} {self.host}",
                f"cafile {self._tls.ca}",
                f"certfile {self._tls.server_cert}",
                f"keyfile {self._tls.server_key}",
                "require_certificate true",
                "use_identity_as_username true",
                "allow_anonymous true",
                self._tls_conf,
            ]
        return "\n".join(lines) + "\n"
