"""`cordon controllers`: the controllers of one store."""

from typing import Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.output import OutputFormat, OutputOption, ago, show

_COLUMNS: Final = ("name", "run", "since", "leads", "buckets", "pending", "lease left", "clock", "version")
app = typer.Typer(help="The controllers that work with the store.", no_args_is_help=True)


@app.callback()
def controllers() -> None:
    """The controllers that work with the store."""


@app.command("list")
@connected
def list_controllers(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the controllers: who leads, how many of the 256 buckets of devices each has, and what waits there."""
    found = client.get("/controllers")
    show(output, found, _COLUMNS, map(_row, found["items"]))


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    left = "" if one["lease_left"] is None else f"{one['lease_left']:.1f} s"
    name = f"{one['name']} *" if one["answers"] else one["name"]
    leads = "yes" if one["is_leader"] else ""
    clock = f"{0.0 - one['clock_offset']:+.3f} s"
    return (
        name, one["run"], ago(one["since"]), leads, one["buckets"], one["pending"], left, clock, one["version"]
    )  # fmt: skip
