"""`cordon approval`: lists, approves and rejects requests that need a second person."""

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
    every: Annotated[bool, typer.Option("--all", help="ended requests too")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List open requests, newest first."""
    requests = client.get("/approvals", state=None if every else "open")["items"]
    show(output, requests, _COLUMNS, map(_row, requests), empty="no request waits for a second person")


def _row(request: dict[str, Any]) -> tuple[object, ...]:
    end = request["expires_at"] if request["state"] == "open" else f"{request['state']} by {request['decided_by']}"
    columns = (request["request_id"], request["state"], _action(request), len(request["devices"]), request["by"])
    return (*columns, ago(request["asked_at"]), end, request["reason"])


def _action(request: dict[str, Any]) -> str:
    if request["asks"] == "contain-user":
        return f"{request['level']}: user {request['username']}"
    return str(request["level"]) if request["asks"] == "contain" else "approve deferred containments"


@app.command("show")
@connected
def show_request(
    client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Show one request with its devices."""
    details = client.get(f"/approvals/{segment(request)}")
    if output is OutputFormat.JSON:
        print_json(details)
        return
    say(f"{details['request_id']}: {details['state']}, {_action(details)}")
    say(f"requested by {safe(details['by'])}: {safe(details['reason'])}")
    for device in details["devices"]:
        say(f"  {safe(device)}")


@app.command("approve")
@connected
def approve(client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Carry out another operator's request; nobody can approve their own request."""
    approved = client.call("POST", f"/approvals/{segment(request)}/approve")
    user = approved["user"]
    if user is None:
        print_decided({"items": approved["items"]}, output)
    elif output is OutputFormat.JSON:
        print_json({"user": user})
    else:
        say(f"user {safe(user['username'])}: {user['level']}; `cordon quarantine users` shows when it is proven")


@app.command("reject")
@connected
def reject(
    client: ApiClient,
    request: ApprovalRequestArgument,
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Reject a request."""
    rejected = client.call("POST", f"/approvals/{segment(request)}/reject", {"reason": reason})
    if output is OutputFormat.JSON:
        print_json(rejected)
    else:
        say(f"{rejected['request_id']}: {rejected['state']}")
