"""`cordon token`: creates, lists and revokes API tokens."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, say, show
from controller.domain.scopes import Scope

_COLUMNS: Final = ("name", "owner", "made", "scopes", "until", "used", "from")
NEVER: Final = "never"
app = typer.Typer(help="Tokens of the API.", no_args_is_help=True)
TokenNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="in the audit log as operator:NAME", show_default=False)
]


ScopesOption = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="permission; repeat for more", show_default="read"),
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
    """Create a token of your account; it is shown only now. It can have only scopes that your own token has."""
    body: dict[str, object] = {"name": name, "scopes": [scope.value for scope in scopes or [Scope.READ]]}
    if duration != NEVER:
        body["for"] = duration
    created = client.call("POST", "/tokens", body)
    if output is OutputFormat.JSON:
        print_json(created)
    else:
        note(f"token {name} for {', '.join(created['scopes'])}; {_until(created)}")
        note("only its SHA-256 is kept, so it is shown only now:")
        say(created["token"])


@app.command("list")
@connected
def list_tokens(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the tokens by name, with their owners, scopes, expiry and last use, without their secrets."""
    tokens = client.get("/tokens")["items"]
    show(output, tokens, _COLUMNS, map(_row, tokens))


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    owner, scopes = token["owner"] or "no owner", " ".join(token["scopes"])
    used = ago(token["last_used_at"]) if token["last_used_at"] else "never"
    return token["name"], owner, ago(token["created_at"]), scopes, _until(token), used, token["last_peer"]


def _until(token: dict[str, Any]) -> str:
    if token["expires_at"] is None:
        return "no end"
    return f"{'expired' if token['expired'] else 'until'} {token['expires_at']}"


@app.command("revoke")
@connected
def revoke(client: ApiClient, name: TokenNameArgument) -> None:
    """Revoke a token at once; the last token that can create others cannot be revoked."""
    client.call("DELETE", f"/tokens/{segment(name)}")
    note(f"token {name} is revoked")
