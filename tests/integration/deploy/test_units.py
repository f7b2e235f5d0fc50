"""The systemd units: verified by systemd's own tools, and the controller really run the way its unit starts it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.support.certs import Certs
from tests.support.compose import DEPLOY
from tests.support.standin import StandInProcess

pytestmark = pytest.mark.slow

UNITS = DEPLOY / "systemd"
SERVICES = ("cordon.service", "cordon-agent.service")
SECONDS = 60.0
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
# Memory that is written is never run, as MemoryDenyWriteExecute= has it; told to the kernel in another way here.
_AS_IN_THE_UNIT = """
import ctypes, os, sys
os.umask(0o077)
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    print("this kernel has no PR_SET_MDWE", file=sys.stderr)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", (UNITS / unit).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def _analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *argv], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the units, the drop-in, and programs where the units expect them."""
    system = tmp_path / "root/etc/systemd/system"
    drop_in = system / "cordon-agent.service.d"
    drop_in.mkdir(parents=True)
    for unit in SERVICES:
        shutil.copy(UNITS / unit, system)
    shutil.copy(UNITS / "cordon-agent-repairs.conf", drop_in / "repairs.conf")
    for program in ("opt/cordon/bin/cordon", "opt/cordon/bin/cordon-agent", "bin/kill"):
        path = tmp_path / "root" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path / "root"


@needs_systemd
def test_systemd_understands_every_line(root: Path) -> None:
    done = _analyze("verify", f"--root={root}", "--recursive-errors=no", *SERVICES)
    assert (done.returncode, done.stderr) == (0, "")
    unit = root / "etc/systemd/system/cordon.service"
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClok="))
    assert "ProtectClok" in _analyze("verify", f"--root={root}", "--recursive-errors=no", "cordon.service").stderr


@needs_systemd
@pytest.mark.parametrize(("unit", "tenths"), [("cordon.service", 15), ("cordon-agent.service", 32)])
def test_exposure_as_systemd_counts_it(unit: str, tenths: int) -> None:
    done = _analyze("security", "--offline=true", f"--threshold={tenths}", str(UNITS / unit))
    assert done.returncode == 0, done.stdout[-2000:]


def test_secrets_come_as_credentials_and_no_unit_names_one() -> None:
    controller = _settings("cordon.service")
    given = dict(one.split(":", 1) for one in controller["LoadCredential"])
    assert {"cordon.toml", "emqx.key", "command-signing.key", "mqtt.key"} <= set(given)
    assert given == {name: f"/etc/cordon/{name}" for name in given}
    assert controller["ExecStart"] == ["/opt/cordon/bin/cordon serve --config %d/cordon.toml"]
    for unit in SERVICES:
        assert not {"Environment", "EnvironmentFile"} & set(_settings(unit))
        assert _settings(unit)["Type"] == [{"cordon-agent.service": "notify"}.get(unit, "simple")]


def test_the_drop_in_only_loosens_what_the_unit_sets() -> None:
    base, more = _settings("cordon-agent.service"), _settings("cordon-agent-repairs.conf")
    assert set(more) <= set(base)


@dataclass
class Installed:
    """A controller set up as docs/operations.md says; `credentials` is what systemd would make of it."""

    etc: Path
    credentials: Path
    store: Path

    def argv(self) -> list[str]:
        start = _settings("cordon.service")["ExecStart"][0].replace("%d", str(self.credentials)).split()
        assert start[0] == "/opt/cordon/bin/cordon"
        return [sys.executable, "-c", _AS_IN_THE_UNIT, "-m", "controller.main", *start[1:]]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    certs = Certs(tmp_path / "certs")
    etc, credentials = tmp_path / "etc", tmp_path / "credentials"
    etc.mkdir()
    credentials.mkdir()
    certificate, key = certs.client("cordon-controller")
    for source, name in ((certs.ca, "ca.pem"), (certificate, "mqtt.pem"), (key, "mqtt.key")):
        shutil.copy(source, etc / name)
    store = tmp_path / "state" / "cordon.db"
    with StandInProcess(nodes=2, certs=certs) as emqx:
        argv = [sys.executable, "-m", "controller.main", "init", "--dir", str(etc), "--store", str(store), "--yes"]
        argv += ["--listen", "127.0.0.1:0", "--emqx-key", emqx.key]
        argv += ["--mqtt-ca", str(etc / "ca.pem"), "--mqtt-cert", str(etc / "mqtt.pem")]
        argv += ["--mqtt-key", str(etc / "mqtt.key")]
        for url, (host, port) in zip(emqx.api_urls, emqx.tls, strict=True):
            argv += ["--emqx", url, "--mqtt", f"mqtts://{host}:{port}"]
        environment = {**os.environ, "CORDON_EMQX_SECRET": emqx.secret}
        subprocess.run(argv, check=True, capture_output=True, timeout=SECONDS, env=environment)
        config = etc / "cordon.toml"
        text = config.read_text().replace(f'"{etc}/', '"').replace('"policies"', json.dumps(str(etc / "policies")))
        config.write_text(text + '\n[log]\nformat = "json"\n')
        for one in _settings("cordon.service")["LoadCredential"]:
            name = one.partition(":")[0]
            shutil.copy(etc / name, credentials / name)
            (credentials / name).chmod(0o400)
        yield Installed(etc, credentials, store)


@dataclass
class Running:
    """The controller's process, its address, and what it logged so far."""

    process: subprocess.Popen[str]
    url: str
    log: list[str]

    def until_logged(self, event: str) -> dict[str, object]:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for line in list(self.log):
                if line.startswith("{") and json.loads(line)["event"] == event:
                    found: dict[str, object] = json.loads(line)
                    return found
            time.sleep(0.02)
        raise AssertionError(f"no {event!r} in {self.log}")


@pytest.fixture
def running(installed: Installed) -> Iterator[Running]:
    process = subprocess.Popen(installed.argv(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []

    def read(stream: IO[str]) -> None:
        for said in stream:
            log.append(said)  # noqa: PERF402 - seen by others while it grows

    reading = threading.Thread(target=read, args=(process.stderr,))
    reading.start()
    watchdog = threading.Timer(SECONDS, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    try:
        assert line, log
        yield Running(process, json.loads(line)["api"], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
        process.stderr.close()


def _is_ready(url: str) -> bool:
    argv = [sys.executable, str(DEPLOY / "docker" / "ready.py")]
    environment = {**os.environ, "CORDON_URL": url}
    return subprocess.run(argv, capture_output=True, check=False, env=environment, timeout=SECONDS).returncode == 0


def test_the_controller_runs_as_its_unit_starts_it(installed: Installed, running: Running, tmp_path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not _is_ready(running.url):
        assert time.monotonic() < deadline, running.log
        time.sleep(0.1)
    assert running.until_logged("started")["level"] == "info"
    assert installed.store.stat().st_mode & 0o777 == 0o600
    # A second one on the same store ends with one line that says why.
    second = subprocess.run(installed.argv(), capture_output=True, text=True, check=False, timeout=SECONDS)
    assert second.returncode == 1
    assert "in use by another `cordon serve`" in second.stderr
    assert "Traceback" not in second.stderr
    # A backup meanwhile, by the configuration that root uses.
    target = tmp_path / "copy.db"
    argv = [
        sys.executable,
        "-m",
        "controller.main",
        "backup",
        str(target),
        "--config",
        str(installed.etc / "cordon.toml"),
    ]
    assert subprocess.run(argv, check=False, timeout=SECONDS, capture_output=True).returncode == 0
    assert target.stat().st_mode & 0o777 == 0o600
    # ExecReload: a policy with a mistake changes nothing, one without is taken.
    policy = installed.etc / "policies" / "starter.yaml"
    good = policy.read_text()
    policy.write_text("nonsense: [")
    running.process.send_signal(signal.SIGHUP)
    assert running.until_logged("policies not loaded, the old ones stay")["error"]
    policy.write_text(good)
    running.process.send_signal(signal.SIGHUP)
    assert running.until_logged("policies loaded")["version"]
    running.process.terminate()
    assert running.process.wait(SECONDS) == 0
    running.until_logged("stopped")
