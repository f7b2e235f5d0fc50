"""Standard output and standard error that are closed, full, or lack characters."""

import contextlib
import io
import os
import sys
from collections.abc import Callable

from device_agent.errors import ExitCode


def prepare() -> None:
    """Gives every character a form in the locale, and a closed standard stream a descriptor that no file can take."""
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number; standard output then fails when it is written
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end(code: int, print_error: Callable[[str, ExitCode], int]) -> int:
    """Writes what is buffered, and returns the exit status: an error of the last write belongs to this command."""
    try:
        sys.stdout.flush()
    except OSError as e:
        # What is still buffered must not fail again when the interpreter ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == ExitCode.OK:
            code = print_error(f"standard output: {e.strerror}", ExitCode.FAILED)
    try:
        sys.stderr.flush()
    except OSError:  # nobody can be told
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code
