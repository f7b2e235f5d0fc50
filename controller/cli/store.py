"""`cordon store`: what the store is, and its copy to another engine."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say
from schemas.secret_sources import SECRET_HELP

_EVERY: Final = 2.0  # seconds between two lines of progress
app = typer.Typer(help="The store: a file of SQLite, or a PostgreSQL database.", no_args_is_help=True)


@app.command("status")
def status(
    config: Annotated[
        Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with the store")
    ] = DEFAULT_CONFIG,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show where the store is, which controllers work with it, its rows and its size; needs no controller."""
    from controller.app.offline_store import store_status
    from controller.service.settings.settings import load_settings

    found = store_status(load_settings(config).store)
    if output is OutputFormat.JSON:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name.replace('_', ' '):26}{_shown(name, value)}")


def _shown(name: str, value: Any) -> str:
    if name == "controllers":
        return "; ".join(map(_controller, value)) or "none"
    if name == "synchronous_standbys" and value is None:
        return "unknown: the role is no member of pg_monitor"
    if name == "synchronous_standby_names" and not value:
        return "none: a failover loses reports that were acknowledged"
    if name == "rows":
        return ", ".join(f"{table} {count}" for table, count in value.items())
    return str(value)


def _controller(one: dict[str, Any]) -> str:
    if "since" not in one:
        return str(one["name"])
    since = f"{datetime.fromtimestamp(one['since'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    leads = ", leads" if one["is_leader"] else ""
    seen = "" if one["lease_left"] > 0 else ", not seen any more"
    return f"{one['name']} ({one['version']}) since {since}{leads}, {one['buckets']} buckets{seen}"


@app.command("copy")
def copy(
    source: Annotated[str, typer.Option("--from", help="sqlite:///PATH or postgresql://USER@HOST/DATABASE")],
    target: Annotated[str, typer.Option("--to", help="the same; a new file, or an empty database")],
    source_password: Annotated[
        str, typer.Option("--from-password-file", help=f"password for --from: {SECRET_HELP}")
    ] = "",
    target_password: Annotated[str, typer.Option("--to-password-file", help=f"password for --to: {SECRET_HELP}")] = "",
) -> None:
    """Copy the store to another place or engine, and compare every row; the controller has to be stopped.

    The audit log keeps its lines, numbers and digests. Nothing is left at the target when the copy fails.
    """
    from controller.app.offline_store import copy_store, read_password

    shown = time.monotonic()

    def progress(table: str, rows: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _EVERY:
            shown = time.monotonic()
            note(f"{table}: {rows} rows")

    head = copy_store(source, target, (read_password(source_password), read_password(target_password)), progress)
    say(f"copied, every row compared; the audit log ends with {head} in both")
