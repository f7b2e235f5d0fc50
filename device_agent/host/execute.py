"""The only place that starts another program: argv lists, a time limit, an output limit, one language."""

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
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024  # of standard output; a program that says more is stopped
_MAX_ERROR_BYTES: Final = 16 * 1024  # of standard error that are kept
_CHUNK: Final = 64 * 1024
_CANCEL_SECONDS: Final = 0.5  # between two looks whether to stop
_ERROR_TEXT: Final = 200  # characters of a program's last words that go into a reason
SLOT_VARIABLE: Final = "CORDON_AGENT_SLOT"  # which agent this is; see `updates.slots`
_KEPT_VARIABLES: Final = ("PATH", "HOME")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ExecuteError(Exception):
    """A program could not be started, or did not end as it should; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """A program that ended by itself."""

    status: int
    out: str
    err: str


def run(
    argv: Sequence[str],
    *,
    seconds: float = DEFAULT_SECONDS,
    environment: Mapping[str, str] | None = None,
    ok: frozenset[int] = frozenset({0}),
    max_bytes: int = MAX_OUTPUT_BYTES,
    cancelled: threading.Event | None = None,
    stdin: bytes = b"",
) -> ProcessResult:
    """Run `argv` without a shell, with the C locale.

    Args:
        argv: the program, found on PATH, and its arguments.
        seconds: it is killed after this time.
        environment: variables beside PATH, HOME and LC_ALL.
        ok: exit statuses that are no error.
        max_bytes: it is killed when it writes more to standard output.
        cancelled: it is killed within a second when this is set.
        stdin: all that it can read from its standard input.

    Raises:
        ExecuteError: it is missing, too slow, too talkative, or ended with another status.
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
    done = ProcessResult(status, out.decode(errors="replace"), err.decode(errors="replace"))
    if status not in ok:
        words = (done.err.strip() or done.out.strip()).splitlines()
        raise ExecuteError(
            clean_text(f"{name} ended with status {status}: {words[-1] if words else 'no output'}", _ERROR_TEXT)
        )
    return done


def own_path() -> dict[str, str]:
    """The environment for a program of this agent's own: it is found where this very one was loaded from."""
    slot = {SLOT_VARIABLE: os.environ[SLOT_VARIABLE]} if SLOT_VARIABLE in os.environ else {}
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **slot}


def _input(content: bytes) -> IO[bytes]:
    # A file in memory and no pipe: nobody has to write while the program's answers are read.
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
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                _kill(process)
                raise ExecuteError(f"{name} did not end within {seconds:g} s")
            if cancelled is not None and cancelled.is_set():
                _kill(process)
                raise ExecuteError(f"{name} was ended because the agent stops")
            for key, _ in selector.select(left if cancelled is None else min(left, _CANCEL_SECONDS)):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk if key.data is out else chunk[: _MAX_ERROR_BYTES - len(err)])
            if len(out) > max_bytes:
                _kill(process)
                raise ExecuteError(f"{name} wrote more than {max_bytes} bytes")
    return bytes(out), bytes(err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Its own session, so that what it started ends with it and no pipe stays open.
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        process.kill()
