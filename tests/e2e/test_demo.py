"""`cordon demo` as a process: its result, and what it leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.standin import StandInProcess

WAIT = 90.0  # seconds
ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "controller.main", "demo", "--fast", "--devices", "6", "--output", "json"]
STEPS = ["healthy", "restricted", "isolated", "stale", "forged", "stepped_down", "ending"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of temporary folders."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def plain() -> Iterator[StandInProcess]:
    """A running broker with one user and without TLS."""
    with StandInProcess(nodes=3, users=[("fleet", "secret")]) as process:
        yield process


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(home)}


def _at(emqx: StandInProcess, user: str = "fleet", password: str = "secret") -> list[str]:
    addresses = ",".join(f"{host}:{port}" for host, port in emqx.mqtt)
    arguments = ["--emqx", ",".join(emqx.api_urls), "--key", emqx.key, "--secret", emqx.secret, "--mqtt", addresses]
    return [*arguments, "--mqtt-user", user, "--mqtt-password", password]


def _run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=WAIT, env=_environment(home), cwd=ROOT
    )


def _processes_of(home: Path) -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home) in line:
                found.append((int(folder.name), line))
    return found


def _state(emqx: StandInProcess) -> dict[str, Any]:
    """Everything at the broker that a run could leave behind."""
    rules = "authorization/sources/built_in_database/rules"
    paths = ("banned", f"{rules}/clients", f"{rules}/users", f"{rules}/all", "authorization/sources", "clients")
    found = {}
    with httpx.Client(base_url=emqx.api_urls[0], auth=(emqx.key, emqx.secret), trust_env=False) as client:
        for path in paths:
            found[path] = client.get(f"/api/v5/{path}").json()
    return found


def _foreign_rows(emqx: StandInProcess) -> None:
    base = "/api/v5/authorization/sources/built_in_database/rules"
    rule = {"topic": "theirs/#", "permission": "deny", "action": "all"}
    with httpx.Client(base_url=emqx.api_urls[0], auth=(emqx.key, emqx.secret), trust_env=False) as client:
        for path, body in (
            ("/api/v5/banned", {"as": "clientid", "who": "theirs", "by": "someone", "until": "infinity"}),
            (f"{base}/clients", [{"clientid": "theirs", "rules": [rule]}]),
            (f"{base}/all", {"rules": [rule]}),
        ):
            client.post(path, json=body).raise_for_status()


@pytest.mark.slow
def test_every_step_is_observed(home: Path) -> None:
    """With the stand-in: complete figures, and nothing left on the machine."""
    done = _run([*COMMAND, "--seed", "7"], home)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"] is True
    assert (result["devices"], result["contained"], result["released"]) == (6, 2, 2)
    assert result["reports"] >= 6 + 4  # all once; two that fail, and each of these again when it passes
    assert len(result["seconds_to_contain"]) == len(result["seconds_to_release"]) == 2
    assert all(seconds > 0 for seconds in result["seconds_to_contain"] + result["seconds_to_release"])
    assert [step["name"] for step in result["steps"]] == ["broker", "setup", *STEPS, "as_found"]
    assert all(step["ok"] and step["observed"] for step in result["steps"])
    assert list(home.iterdir()) == []
    assert _processes_of(home) == []


@pytest.mark.slow
def test_a_broker_in_use_is_left_as_found(home: Path, plain: StandInProcess) -> None:
    """With passwords at a broker that has rows of others: exactly these are there afterwards."""
    _foreign_rows(plain)
    before = _state(plain)
    done = _run([*COMMAND, *_at(plain)], home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is True
    assert _state(plain) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up(home: Path, plain: StandInProcess, number: signal.Signals) -> None:
    """Interrupted while a device is isolated: its ban, its rules, sessions and processes are removed."""
    _foreign_rows(plain)
    before = _state(plain)
    process = subprocess.Popen(
        [*COMMAND, *_at(plain)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(home), cwd=ROOT,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "DISCONNECT 152" in line:
                break
        # The foreign one, that of the device, and that of the id `+`.
        assert len(_state(plain)["banned"]["data"]) == 3, lines
        process.send_signal(number)
        _, rest = process.communicate(timeout=WAIT)
    assert process.returncode == 130, rest
    assert _state(plain) == before, rest
    assert list(home.iterdir()) == []
    assert _processes_of(home) == []


@pytest.mark.slow
def test_a_failed_step_is_reported(home: Path, plain: StandInProcess) -> None:
    """A wrong password: exit status 1, the step and the reason named, the broker as before."""
    before = _state(plain)
    done = _run([*COMMAND, *_at(plain, password="wrong")], home)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    failed = [step for step in result["steps"] if not step["ok"]]
    assert result["ok"] is False
    assert failed[0]["name"] == "setup"
    assert "was refused by the broker" in failed[0]["missing"]
    assert "NOT observed" in done.stderr
    assert _state(plain) == before
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_a_killed_controller_is_reported(home: Path) -> None:
    """Killed while a device is restricted: the result names it, and all other processes are stopped."""
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(home), cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "PUBACK 135 for its telemetry" in line:
                break
        assert "PUBACK 135 for its telemetry" in lines[-1], "".join(lines)
        (controller,) = [number for number, words in _processes_of(home) if " serve " in words]
        os.kill(controller, signal.SIGKILL)
        rest = process.stderr.read()
        result = json.loads(process.stdout.read().splitlines()[-1])
        process.wait(WAIT)
    assert process.returncode == 1, rest
    failed = [step for step in result["steps"] if not step["ok"]]
    assert [step["name"] for step in failed] == ["restricted"]
    assert "cordon-serve ended with exit code -9" in failed[0]["missing"]
    assert _processes_of(home) == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--emqx", "http://127.0.0.1:1"], "--key"),
        (["--mqtt", "127.0.0.1:1"], "--emqx"),
        (["--devices", "3"], "devices"),
    ],
)
def test_invalid_options(home: Path, arguments: list[str], what: str) -> None:
    """Refused before anything is started."""
    done = _run([*COMMAND, *arguments], home)
    assert done.returncode == 2
    assert what in done.stderr
