"""Runs programs: argv lists without a shell, a time limit, an output limit, the C locale."""

import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from schemas.base import clean_text

DEFAULT_SECONDS: Final = 20.0
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024  # of standard output; a program that writes more is killed
_MAX_ERROR_BYTES: Final = 16 * 1024  # of standard error are kept
_CHUNK: Final = 64 * 1024
_CHECK_SECONDS: Final = 0.5  # between two checks for cancellation, and for the end of the program
_LATE_OUTPUT_SECONDS: Final = 1.0  # of an ended program; what it started may keep its output open for ever
_MAX_REASON: Final = 200  # characters of a program's last output line in an error
SLOT_VARIABLE: Final = "CORDON_AGENT_SLOT"  # the slot of this agent; see `updates.slots`
_KEPT_VARIABLES: Final = ("PATH", "HOME")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ExecuteError(Exception):
    """A program could not be started, or failed; the text is one line."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The status and output of a program that ended by itself."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    seconds: float = DEFAULT_SECONDS,
    environment: Mapping[str, str] | None = None,
    ok_statuses: frozenset[int] = frozenset({0}),
    max_bytes: int = MAX_OUTPUT_BYTES,
    cancelled: threading.Event | None = None,
    stdin: bytes = b"",
) -> ProcessResult:
    """Runs `argv` without a shell, with the C locale. What it leaves running, such as a daemon, goes on.

    Args:
        argv: the program, found on PATH, and its arguments.
        seconds: time limit; the program is killed after it.
        environment: variables in addition to PATH, HOME and LC_ALL.
        ok_statuses: exit statuses that are no failure.
        max_bytes: the program is killed when it writes more to standard output.
        cancelled: the program is killed within a second when this is set.
        stdin: its standard input.

    Raises:
        ExecuteError: it is missing, exceeded a limit, was cancelled, or ended with another status.
    """
    name = argv[0].rsplit("/", 1)[-1]
    try:
        with (
            _input(stdin) as source,
            subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(environment),
                start_new_session=True,
            ) as process,
        ):
            out, err = _read(process, name, seconds, max_bytes, cancelled)
            status = process.wait()
    except FileNotFoundError as e:
        raise ExecuteError(f"{name} is not installed") from e
    except OSError as e:
        raise ExecuteError(f"{name} cannot be started: {e.strerror}") from e
    result = ProcessResult(status, out.decode(errors="replace"), err.decode(errors="replace"))
    if status not in ok_statuses:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise ExecuteError(
            clean_text(f"{name} ended with status {status}: {lines[-1] if lines else 'no output'}", _MAX_REASON)
        )
    return result


def environment_for_self() -> dict[str, str]:
    """Returns the environment for a child process of this agent: it loads the same modules as this process."""
    slot = {SLOT_VARIABLE: os.environ[SLOT_VARIABLE]} if SLOT_VARIABLE in os.environ else {}
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **slot}


def _input(content: bytes) -> IO[bytes]:
    # A file in memory instead of a pipe: nothing has to be written while the output is read.
    source = os.fdopen(os.memfd_create("stdin"), "w+b")
    source.write(content)
    source.seek(0)
    return source


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": _PATH, **kept, "LC_ALL": "C", **(extra or {})}


def _read(
    process: subprocess.Popen[bytes], name: str, seconds: float, max_bytes: int, cancelled: threading.Event | None
) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + seconds
    has_ended = False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            if not has_ended and process.poll() is not None:
                has_ended, deadline = True, time.monotonic() + _LATE_OUTPUT_SECONDS
            left = deadline - time.monotonic()
            if left <= 0 and has_ended:
                break
            if left <= 0:
                _kill(process)
                raise ExecuteError(f"{name} did not end within {seconds:g} s")
            if cancelled is not None and cancelled.is_set() and not has_ended:
                _kill(process)
                raise ExecuteError(f"{name} was killed because the agent stops")
            for key, _ in selector.select(min(left, _CHECK_SECONDS)):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk if key.data is out else chunk[: _MAX_ERROR_BYTES - len(err)])
            if len(out) > max_bytes:
                _kill(process)
                raise ExecuteError(f"{name} wrote more than {max_bytes} bytes")
    return bytes(out), bytes(err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:
        return  # its number may be another process's by now
    # The program has its own session, so that its children are killed too and no pipe stays open.
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        process.kill()
