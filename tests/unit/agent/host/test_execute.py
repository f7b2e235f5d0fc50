"""Programs are started without a shell, bounded in time and output."""

import sys
import time
from pathlib import Path

import pytest

from device_agent.host.execute import ExecuteError, run


def test_output_status_and_language() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; echo $LC_ALL $SECRET; exit 3"], ok=frozenset({3}))
    assert (done.status, done.out, done.err) == (3, "out\nC\n", "err\n")


def test_only_the_named_environment_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert "SECRET" not in run(["env"]).out
    assert "ADDED=1" in run(["env"], environment={"ADDED": "1"}).out


def test_arguments_are_no_shell_text() -> None:
    assert run(["echo", "$(id); `id` | id"]).out == "$(id); `id` | id\n"


def test_a_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder on the real PATH that this user may not enter would be another error.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecuteError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_another_status_carries_the_last_words() -> None:
    with pytest.raises(ExecuteError, match="sh ended with status 4: last"):
        run(["sh", "-c", "echo first >&2; echo last >&2; exit 4"])


def test_too_slow_is_killed_with_its_children() -> None:
    begun = time.monotonic()
    with pytest.raises(ExecuteError, match="did not end within"):
        run(["sh", "-c", "sleep 60 & echo $!; wait"], seconds=0.3)
    assert time.monotonic() - begun < 30


def test_too_much_output_is_stopped() -> None:
    with pytest.raises(ExecuteError, match="wrote more than 1000 bytes"):
        run([sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 4096)"], max_bytes=1000)


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run(["true"])
        with pytest.raises(ExecuteError):
            run(["sleep", "9"], seconds=0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
