"""`cordon`: the controller's program. Tells which extra is missing instead of failing at an import."""

import contextlib
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
    from schemas.output_streams import prepare_streams

    prepare_streams()
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
