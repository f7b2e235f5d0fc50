"""`cordon enrol`: enrolment tokens, with which devices get their certificates."""

from typing import Annotated, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, say, show

_COLUMNS: Final = ("token id", "uses left", "expires", "device", "ids", "class", "by", "state")
app = typer.Typer(help="Enrolment tokens of devices.", no_args_is_help=True)


@app.command("token")
@connected
def token(
    client: ApiClient,
    duration: Annotated[
        str | None, typer.Option("--for", help="lifetime: 90s, 10m, 2h, 7d; at most 30d, 24h by default")
    ] = None,
    uses: Annotated[int, typer.Option("--uses", help="number of devices that may use it", min=1)] = 1,
    device_class: Annotated[str, typer.Option("--class", help="class that the devices get")] = "",
    device: Annotated[str | None, typer.Option("--device", help="only for this device")] = None,
    ids: Annotated[
        str, typer.Option("--ids", help="only for device ids like this: * and ?; without it none with capital letters")
    ] = "",
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="permit a new certificate for a device that has, or had, one")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Create an enrolment token; it is shown only now."""
    body = {"uses": uses, "class": device_class, "device_id": device, "replace": replace, "ids": ids}
    created = client.call("POST", "/enrolment/tokens", body if duration is None else {**body, "for": duration})
    if output is OutputFormat.JSON:
        print_json(created)
        return
    note(f"enrolment token {created['kept']['token_id']}; only its SHA-256 is kept. On the device:")
    note(
        f"  cordon-agent enrol --url https://CONTROLLER --token-file FILE --ca-fingerprint {created['ca_fingerprint']}"
    )
    say(created["token"])


@app.command("tokens")
@connected
def list_tokens(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the enrolment tokens, without their secrets."""
    tokens = client.get("/enrolment/tokens")["items"]
    rows = (
        (
            token["token_id"],
            token["uses_left"],
            ago(token["expires_at"]),
            token["device_id"] + (" (replaces)" if token["replaces"] else ""),
            token["ids"],
            token["device_class"],
            token["by"],
            "over" if token["over"] else "open",
        )
        for token in tokens
    )
    show(output, tokens, _COLUMNS, rows, empty="there are no enrolment tokens")


@app.command("withdraw")
@connected
def withdraw(
    client: ApiClient, token_id: Annotated[str, typer.Argument(metavar="TOKEN-ID", show_default=False)]
) -> None:
    """Withdraw an enrolment token: it is no longer accepted."""
    client.call("DELETE", f"/enrolment/tokens/{segment(token_id)}")
    note(f"enrolment token {token_id} is withdrawn")
