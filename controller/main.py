"""`cordon`: the controller's program. Tells which extra is missing instead of failing at an import."""

import contextlib
import io
import os
import sys
from typing import Final, TextIO

_NEEDED: Final = (
    "cel_expr_python",
    "fastapi",
    "httpx",
    "mqtt5",
    "prometheus_client",
    "rich",
    "sqlite_utils",
    "stamina",
    "structlog",
    "typer",
    "univers",
    "uvicorn",
    "uvloop",
    "yaml",
)
_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT


def main(argv: list[str] | None = None) -> int:
    """Run one command line; its exit code."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in _NEEDED):
        sys.stderr.write('cordon needs the controller extra: pip install "emqx-cordon[controller]"\n')
        return _USAGE
    from controller.cli.app import run_safely

    _prepare_streams()
    try:
        code = run_safely(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # an error of the last buffer belongs to this command
        _flush_errors()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (OSError, UnicodeError) as e:
        _discard_output(sys.stdout)
        with contextlib.suppress(OSError):
            sys.stderr.write(f"cordon: {e}\n")
        _flush_errors()
        return _FAILED
    return code


def _prepare_streams() -> None:
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


def _flush_errors() -> None:
    try:
        sys.stderr.flush()
    except OSError:  # nobody can be told
        _discard_output(sys.stderr)


def _discard_output(stream: TextIO) -> None:
    """What is still buffered must not fail again when the interpreter ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
