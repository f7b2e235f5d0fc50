"""`cordon enrol`: tokens with which devices get their certificates."""

from typing import Annotated, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, say, show

_COLUMNS: Final = ("token id", "uses left", "expires", "device", "class", "by", "state")
app = typer.Typer(help="Let devices get their certificates.", no_args_is_help=True)


@app.command("token")
@connected
def token(
    client: ApiClient,
    duration: Annotated[str, typer.Option("--for", help="how long it opens: 90s, 10m, 2h, 7d; at most 30d")] = "24h",
    uses: Annotated[int, typer.Option("--uses", help="for so many devices", min=1)] = 1,
    device_class: Annotated[str, typer.Option("--class", help="class that the devices get")] = "",
    device: Annotated[str | None, typer.Option("--device", help="for this device only")] = None,
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="approve that a device which has, or had, a certificate gets another")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make an enrolment token; it is shown here and never again."""
    body = {"for": duration, "uses": uses, "class": device_class, "device_id": device, "replace": replace}
    found = client.call("POST", "/enrolment/tokens", body)
    if output is OutputFormat.JSON:
        print_json(found)
        return
    note(f"enrolment token {found['kept']['token_id']}; only its SHA-256 is kept. On the device:")
    note(f"  cordon-agent enrol --url https://CONTROLLER --token-file FILE --ca-fingerprint {found['ca_fingerprint']}")
    say(found["token"])


@app.command("tokens")
@connected
def list_tokens(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the enrolment tokens; never what they are."""
    found = client.get("/enrolment/tokens")["items"]
    rows = (
        (
            one["token_id"],
            one["uses_left"],
            ago(one["expires_at"]),
            one["device_id"] + (" (replaces)" if one["replaces"] else ""),
            one["device_class"],
            one["by"],
            "over" if one["over"] else "open",
        )
        for one in found
    )
    show(output, found, _COLUMNS, rows, empty="there are no enrolment tokens")


@app.command("withdraw")
@connected
def withdraw(
    client: ApiClient, token_id: Annotated[str, typer.Argument(metavar="TOKEN-ID", show_default=False)]
) -> None:
    """Withdraw an enrolment token: it opens nothing any more."""
    client.call("DELETE", f"/enrolment/tokens/{segment(token_id)}")
    note(f"enrolment token {token_id} opens nothing any more")
