"""The EMQX stand-in as a process, on free ports, which its `with` block stops.

`with StandInProcess(nodes=3) as emqx:` gives `emqx.api_urls`, `emqx.mqtt`, `emqx.tls`, `emqx.key`, `emqx.secret`.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx

from tests.support.certs import Certs

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 5.0
_LOG_SHOWN: Final = 8000  # characters


class StandInProcess:
    """One stand-in process with its nodes."""

    def __init__(
        self,
        *,
        nodes: int = 1,
        users: Sequence[tuple[str, str]] = (),
        certs: Certs | None = None,
        no_match: str = "allow",
        emqx: str = "5.8",
    ) -> None:
        """Prepares it.

        Args:
            nodes: their number.
            users: MQTT names and passwords; without any, clients are anonymous.
            certs: adds TLS listeners with this authority, which take the client id from the certificate.
            no_match: what happens when no access rule matches, `allow` or `deny`.
            emqx: the release that it answers as, `5.8` or `6.3`.
        """
        self.key = "cordon"
        self.secret = secrets.token_hex(16)  # never begins with a dash
        self.names: list[str] = []
        self.api_urls: list[str] = []
        self.mqtt: list[tuple[str, int]] = []
        self.tls: list[tuple[str, int]] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the process, closed in `__exit__`
        self._process: subprocess.Popen[str] | None = None
        self._argv = [sys.executable, "-m", "controller.standin", "--nodes", str(nodes), "--no-match", no_match]
        self._argv += ["--emqx", emqx]
        self._argv += ["--api-key", self.key]
        for name, password in users:
            self._argv += ["--user", f"{name}:{password}"]
        if certs is not None:
            self._argv += ["--tls-ca", str(certs.ca), "--tls-cert", str(certs.server_cert)]
            self._argv += ["--tls-key", str(certs.server_key)]

    @property
    def log(self) -> str:
        """Standard error so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill_node(self, name: str) -> None:
        """Kills a node, by a request to another one."""
        other = next(url for own, url in zip(self.names, self.api_urls, strict=True) if own != name)
        answer = httpx.post(
            f"{other}/standin/kill/{quote(name, safe='')}", auth=(self.key, self.secret), timeout=5, trust_env=False
        )
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"

    def hang_node(self, number: int, seconds: float = 120.0) -> None:
        """Lets a node hang; the others give it up after `seconds`."""
        self._control(f"hang/{quote(self.names[number], safe='')}", number - 1, {"seconds": seconds})

    def resume_node(self, number: int) -> None:
        """Lets a hung node go on."""
        self._control(f"resume/{quote(self.names[number], safe='')}", number - 1, {})

    def _control(self, path: str, through: int, body: object) -> None:
        url = f"{self.api_urls[through]}/standin/{path}"
        answer = httpx.post(url, json=body, auth=(self.key, self.secret), timeout=5, trust_env=False)
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"

    def restart_node(self, number: int) -> None:
        """Kills a node, which restarts half a second later."""
        name, other = self.names[number], self.api_urls[number - 1]
        answer = httpx.post(
            f"{other}/standin/restart/{quote(name, safe='')}", auth=(self.key, self.secret), timeout=5, trust_env=False
        )
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"

    def hide(self, node: int, **rows: Sequence[str]) -> None:
        """Lets the API of a node omit these rows (`bans`, `clients`, `users`)."""
        url = f"{self.api_urls[node]}/standin/hide/{quote(self.names[node], safe='')}"
        answer = httpx.post(url, json=rows, auth=(self.key, self.secret), timeout=5, trust_env=False)
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"

    def configure(self, config: object) -> None:
        """Applies a configuration; see `controller.standin.overrides`."""
        answer = httpx.post(
            f"{self.api_urls[0]}/standin/config", json=config, auth=(self.key, self.secret), timeout=5, trust_env=False
        )
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"

    def __enter__(self) -> Self:
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "CORDON_STANDIN_SECRET": self.secret}
        self._process = subprocess.Popen(
            self._argv, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=root, env=environment
        )
        assert self._process.stdout is not None
        # A process that is never ready is killed, which ends the read below.
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        watchdog.join()
        if not line:
            self._stop()
            said = self.log[-_LOG_SHOWN:]
            self._log.close()
            raise RuntimeError(f"the stand-in did not start:\n{said}")
        for node in json.loads(line)["nodes"]:
            self.names.append(node["name"])
            self.api_urls.append(node["api"])
            self.mqtt.append(_host_port(node["mqtt"]))
            if node["tls"] is not None:
                self.tls.append(_host_port(node["tls"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if error is not None:
            error.add_note(f"the stand-in said:\n{self.log[-_LOG_SHOWN:]}")
        self._log.close()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
