"""Programs run without a shell, bounded in time and output."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from device_agent.host.execute import ExecuteError, run


def test_output_and_status_are_returned_in_the_c_locale() -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; echo $LC_ALL $SECRET; exit 3"], ok_statuses=frozenset({3}))
    assert (result.status, result.stdout, result.stderr) == (3, "out\nC\n", "err\n")


def test_only_named_variables_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert "SECRET" not in run(["env"]).stdout
    assert "ADDED=1" in run(["env"], environment={"ADDED": "1"}).stdout


def test_no_shell_interprets_arguments() -> None:
    assert run(["echo", "$(id); `id` | id"]).stdout == "$(id); `id` | id\n"


def test_a_missing_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An inaccessible folder on the real PATH would cause another error.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecuteError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_a_failure_has_the_last_line_of_output() -> None:
    with pytest.raises(ExecuteError, match="sh ended with status 4: last"):
        run(["sh", "-c", "echo first >&2; echo last >&2; exit 4"])


def test_a_slow_program_is_killed_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ExecuteError, match="did not end within"):
        run(["sh", "-c", "sleep 60 & echo $!; wait"], seconds=0.3)
    assert time.monotonic() - started < 30


def test_a_program_with_too_much_output_is_killed() -> None:
    with pytest.raises(ExecuteError, match="wrote more than 1000 bytes"):
        run([sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 4096)"], max_bytes=1000)


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run(["true"])
        with pytest.raises(ExecuteError):
            run(["sleep", "9"], seconds=0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("status", [0, 3])
def test_a_program_ends_although_what_it_started_keeps_its_output_open(status: int) -> None:
    """A package script that starts a daemon: the daemon goes on."""
    code = f"sleep 300 & echo $!; echo problem >&2; exit {status}"
    result = run(["sh", "-c", code], seconds=10.0, ok_statuses=frozenset({status}))
    assert (result.status, result.stderr) == (status, "problem\n")
    os.kill(int(result.stdout), signal.SIGKILL)  # it runs


def test_a_chattering_child_does_not_keep_an_ended_program() -> None:
    code = "(while :; do echo more; sleep 0.1; done) & echo $!"
    result = run(["sh", "-c", code], seconds=10.0)
    os.kill(int(next(line for line in result.stdout.splitlines() if line.isdigit())), signal.SIGKILL)


def test_all_output_of_an_ended_program_is_read() -> None:
    code = "sleep 300 & echo $! >&2; head -c 1000000 /dev/zero | tr '\\0' x"
    result = run(["sh", "-c", code], seconds=20.0)
    assert len(result.stdout) == 1_000_000
    os.kill(int(result.stderr), signal.SIGKILL)
