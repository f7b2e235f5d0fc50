"""`cordon approval`: what another operator asked for and one person may not decide."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.guard import GuardReasonOption, print_decided
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show

_COLUMNS: Final = ("request", "state", "asks", "devices", "by", "asked", "ends", "reason")
app = typer.Typer(help="Requests that need a second person.", no_args_is_help=True)
ApprovalRequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="id of the request", show_default=False)
]


@app.command("list")
@connected
def list_requests(
    client: ApiClient,
    every: Annotated[bool, typer.Option("--all", help="those that ended too")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List requests that wait, newest first."""
    found = client.get("/approvals", state=None if every else "open")["items"]
    show(output, found, _COLUMNS, map(_row, found), empty="nothing waits for a second person")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    ends = one["expires_at"] if one["state"] == "open" else f"{one['state']} by {one['decided_by']}"
    return (
        one["request_id"], one["state"], _asks(one), len(one["devices"]), one["by"], ago(one["asked_at"]), ends,
        one["reason"],
    )  # fmt: skip


def _asks(one: dict[str, Any]) -> str:
    return str(one["level"]) if one["asks"] == "contain" else "let through what waits"


@app.command("show")
@connected
def show_request(
    client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Show one request with its devices."""
    found = client.get(f"/approvals/{segment(request)}")
    if output is OutputFormat.JSON:
        print_json(found)
        return
    say(f"{found['request_id']}: {found['state']}, {_asks(found)}")
    say(f"asked by {safe(found['by'])}: {safe(found['reason'])}")
    for device in found["devices"]:
        say(f"  {safe(device)}")


@app.command("approve")
@connected
def approve(client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Carry out what another operator asked for; never one's own request."""
    found = client.call("POST", f"/approvals/{segment(request)}/approve")
    print_decided({"items": found["items"]}, output)


@app.command("reject")
@connected
def reject(
    client: ApiClient,
    request: ApprovalRequestArgument,
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say no to a request."""
    found = client.call("POST", f"/approvals/{segment(request)}/reject", {"reason": reason})
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        say(f"{found['request_id']}: {found['state']}")
