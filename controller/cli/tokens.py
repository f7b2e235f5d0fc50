"""`cordon token`: who may use the API."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, say, show
from controller.domain.scopes import Scope

_COLUMNS: Final = ("name", "made", "scopes", "until")
NEVER: Final = "never"
app = typer.Typer(help="Who may use the API.", no_args_is_help=True)
TokenNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="stands in the record as operator:NAME", show_default=False)
]


ScopesOption = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="what it may be used for; repeat for more", show_default="read"),
]
TokenLifetimeOption = Annotated[str, typer.Option("--for", metavar="DURATION", help="90d, 12h; `never` for no end")]


@app.command("create")
@connected
def create(
    client: ApiClient,
    name: TokenNameArgument,
    scopes: ScopesOption = None,
    duration: TokenLifetimeOption = "90d",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a token; it is shown here and never again. It opens nothing that your own does not."""
    wanted = [one.value for one in scopes or [Scope.READ]]
    body: dict[str, object] = {"name": name, "scopes": wanted}
    if duration != NEVER:
        body["for"] = duration
    found = client.call("POST", "/tokens", body)
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        note(f"token {name} for {', '.join(found['scopes'])}; {_until(found)}")
        note("only its SHA-256 is kept, so this is the last time it is shown:")
        say(found["token"])


@app.command("list")
@connected
def list_tokens(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the tokens by name, what they are for and until when; never what they are."""
    found = client.get("/tokens")["items"]
    show(output, found, _COLUMNS, (_row(one) for one in found))


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    return token["name"], ago(token["created_at"]), " ".join(token["scopes"]), _until(token)


def _until(token: dict[str, Any]) -> str:
    if token["expires_at"] is None:
        return "no end"
    return f"{'expired' if token['expired'] else 'until'} {token['expires_at']}"


@app.command("revoke")
@connected
def revoke(client: ApiClient, name: TokenNameArgument) -> None:
    """Withdraw a token at once; the last one that can make others stays."""
    client.call("DELETE", f"/tokens/{segment(name)}")
    note(f"token {name} opens nothing any more")
