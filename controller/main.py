"""`cordon`: the controller's program. Tells which extra is missing instead of failing at an import."""

import sys
from typing import Final

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
_USAGE: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT


def main(argv: list[str] | None = None) -> int:
    """Run one command line; its exit code."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in _NEEDED):
        sys.stderr.write('cordon needs the controller extra: pip install "emqx-cordon[controller]"\n')
        return _USAGE
    from controller.cli.app import run_safely

    try:
        return run_safely(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
