"""The end of standard output and standard error, which may be full or closed."""

import contextlib
import os
import sys
from collections.abc import Callable

from device_agent.errors import ExitCode


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
