"""`cordon token`: who may use the API."""

from typing import Annotated, Final

import typer

from controller.cli.client import Client, segment
from controller.cli.connect import connected
from controller.cli.output import Format, Output, ago, note, print_json, say, show

_COLUMNS: Final = ("name", "made")
app = typer.Typer(help="Who may use the API.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="stands in the record as operator:NAME", show_default=False)]


@app.command("create")
@connected
def create(client: Client, name: Name, output: Output = Format.TABLE) -> None:
    """Make a token; it is shown here and never again."""
    found = client.call("POST", "/tokens", {"name": name})
    if output is Format.JSON:
        print_json(found)
    else:
        note(f"token {name}; only its SHA-256 is kept, so this is the last time it is shown:")
        say(found["token"])


@app.command("list")
@connected
def list_tokens(client: Client, output: Output = Format.TABLE) -> None:
    """List the tokens by name; never what they are."""
    found = client.get("/tokens")["items"]
    show(output, found, _COLUMNS, ((one["name"], ago(one["created_at"])) for one in found))


@app.command("revoke")
@connected
def revoke(client: Client, name: Name) -> None:
    """Withdraw a token at once; the last one stays."""
    client.call("DELETE", f"/tokens/{segment(name)}")
    note(f"token {name} opens nothing any more")
