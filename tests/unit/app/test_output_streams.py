"""Output that is full, closed or narrow ends in one line, or none, and never in a traceback; for both programs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.reports import full

pytestmark = pytest.mark.slow

NARROW = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
POLICY = """policy: p
version: 1
title: t
rules:
  - {id: a, title: "Die Tür ist zu ✓", severity: low, check: firewall_active}
"""
COMMANDS = (
    ("controller.main", "--version"),
    ("controller.main", "update", "keys", "--help"),
    ("device_agent.main", "--help"),
    ("device_agent.main", "report"),
)


def run(*arguments: str, stdout: str = "", closed: int | None = None, stderr: str = "") -> tuple[int, bytes, bytes]:
    """Exit status and output of a program; `stdout` and `stderr` are files, `closed` a descriptor that is closed."""

    def close() -> None:
        if closed is not None:
            os.close(closed)

    files = [Path(name).open("wb") if name else None for name in (stdout, stderr)]  # noqa: SIM115 - closed below
    out, err = (subprocess.PIPE if file is None else file for file in files)
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"} | NARROW
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment, check=False, timeout=120,
        preexec_fn=close,
    )  # fmt: skip
    for file in files:
        if file is not None:
            file.close()
    return done.returncode, done.stdout or b"", done.stderr or b""


def is_one_line(text: bytes) -> bool:
    return b"Traceback" not in text and text.count(b"\n") <= 1


@pytest.mark.parametrize("command", COMMANDS)
def test_full_or_closed_output_fails_in_one_line(command: tuple[str, ...]) -> None:
    for status, _, told in (run(*command, stdout="/dev/full"), run(*command, closed=1)):
        assert status == 1, told
        assert is_one_line(told), told


@pytest.mark.parametrize("command", COMMANDS)
def test_output_without_a_reader_ends_quietly(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
            timeout=120,
        )
    assert done.returncode == 1
    assert is_one_line(done.stderr), done.stderr


@pytest.mark.parametrize("program", ["controller.main", "device_agent.main"])
@pytest.mark.parametrize("where", [{"stderr": "/dev/full"}, {"closed": 2}])
def test_error_that_nobody_can_read_still_has_its_status(program: str, where: dict[str, object]) -> None:
    wanted: Callable[..., tuple[int, bytes, bytes]] = run
    config = ("serve", "--config", "/nowhere") if program == "controller.main" else ("run", "--config", "/nowhere")
    status, out, _ = wanted(program, *config, **where)
    assert (status, out) == (2, b"")


def test_text_that_the_locale_lacks_is_escaped(tmp_path: Path) -> None:
    policy, report = tmp_path / "p.yaml", tmp_path / "r.json"
    policy.write_text(POLICY, "utf-8")
    report.write_bytes(full("edge-1", 1))
    status, out, told = run("controller.main", "policy", "test", str(policy), str(report))
    assert status in (0, 1), told
    assert b"Die T\\xfcr ist zu \\u2713" in out


@pytest.mark.parametrize("command", [("devices", "show", "\udcff"), ("audit", "list", "--device", "\udcff")])
def test_argument_that_is_no_text_is_told(command: tuple[str, ...]) -> None:
    status, _, told = run("controller.main", *command, "--url", "http://127.0.0.1:1")
    assert status in (1, 2, 3)
    assert b"Traceback" not in told
