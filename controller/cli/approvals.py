"""`cordon approval`: the inbox of all requests that need a second person, and scopes for a while."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.guard import GuardReasonOption, print_decided
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show

_COLUMNS: Final = ("request", "state", "asks", "devices", "by", "asked", "ends", "reason")
_GRANT_COLUMNS: Final = ("request", "person", "scopes", "until", "given by", "reason")
_SHOWN: Final = 200  # ended requests in a list
app = typer.Typer(help="Requests that need a second person.", no_args_is_help=True)
ApprovalRequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="id of the request", show_default=False)
]


MineOption = Annotated[bool, typer.Option("--mine", help="only your own requests, with what became of them")]


@app.command("list")
@connected
def list_requests(
    client: ApiClient,
    every: Annotated[bool, typer.Option("--all", help="ended requests too")] = False,
    mine: MineOption = False,
    asks: Annotated[
        str | None, typer.Option(help="contain, contain-user, let-through, revoke, rollout, command or scopes")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="maximum number")] = _SHOWN,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List requests, newest first: the open ones; with --all or --mine those that ended too."""
    state = None if every or mine else "open"
    requests = list(client.pages("/approvals", limit, state=state, asks=asks, mine=mine or None))
    show(output, requests, _COLUMNS, map(_row, requests), empty="no request waits for a second person")


def _row(request: dict[str, Any]) -> tuple[object, ...]:
    end = request["expires_at"]
    if request["state"] != "open":
        end = f"{request['state']} by {request['decided_by']}"
    columns = (request["request_id"], request["state"], _action(request), request["device_count"], request["by"])
    return (*columns, ago(request["asked_at"]), end, request["outcome"] or request["reason"])


def _action(request: dict[str, Any]) -> str:
    match request["asks"]:
        case "contain":
            return str(request["level"])
        case "contain-user":
            return f"{request['level']}: user {request['username']}"
        case "let-through":
            return "approve deferred containments"
        case "revoke":
            return f"revoke {len(request['serials'])} certificates"
        case "scopes":
            return f"scopes {', '.join(request['scopes'])} for {request['duration']}"
        case kind:
            return f"{kind} {request['subject']}"


@app.command("show")
@connected
def show_request(
    client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Show one request with its devices, who decided it, and why."""
    _print(client.get(f"/approvals/{segment(request)}"), output)


def _print(details: dict[str, Any], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(details)
        return
    say(f"{details['request_id']}: {details['state']}, {safe(_action(details))}")
    say(f"requested by {safe(details['by'])} {ago(details['asked_at'])}: {safe(details['reason'])}")
    if details["decided_by"]:
        why = f": {safe(details['outcome'])}" if details["outcome"] else ""
        say(f"{details['state']} by {safe(details['decided_by'])} at {details['decided_at']}{why}")
    else:
        say(f"needs somebody else with the scope {', '.join(details['needs'])}, until {details['expires_at']}")
    if details["lent_until"]:
        say(f"the scopes count until {details['lent_until']}")
    for word in (*details["devices"], *details["serials"]):
        say(f"  {safe(word)}")


@app.command("approve")
@connected
def approve(client: ApiClient, request: ApprovalRequestArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Carry out another person's request; nobody approves their own. A command is approved by `cordon command sign`."""
    asked = client.get(f"/approvals/{segment(request)}")
    approved = client.call("POST", f"/approvals/{segment(request)}/approve", {"digest": asked["digest"]})
    user = approved["user"]
    if output is OutputFormat.JSON:
        print_json(approved)
    elif user is not None:
        say(f"user {safe(user['username'])}: {user['level']}; `cordon quarantine users` shows when it is proven")
    elif approved["items"]:
        print_decided({"items": approved["items"]}, output)
    else:
        _print(approved["request"], output)


@app.command("reject")
@connected
def reject(
    client: ApiClient,
    request: ApprovalRequestArgument,
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Reject a request: a rollout is aborted, a command withdrawn."""
    _print(client.call("POST", f"/approvals/{segment(request)}/reject", {"reason": reason}), output)


@app.command("withdraw")
@connected
def withdraw(
    client: ApiClient,
    request: ApprovalRequestArgument,
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Withdraw your own request."""
    _print(client.call("POST", f"/approvals/{segment(request)}/withdraw", {"reason": reason}), output)


@app.command("request")
@connected
def ask_for_scopes(
    client: ApiClient,
    scopes: Annotated[str, typer.Option("--scopes", help="contain,command", show_default=False)],
    duration: Annotated[str, typer.Option("--for", help="from the approval on: 30m, 2h; at most 8h")],
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Ask for scopes for a while; a second person who has them by role gives them."""
    wanted = [word.strip() for word in scopes.split(",") if word.strip()]
    if not wanted:
        raise CliError("name scopes: --scopes contain,command", ExitCode.USAGE)
    _print(client.call("POST", "/approvals", {"scopes": wanted, "for": duration, "reason": reason}), output)


@app.command("grants")
@connected
def list_grants(client: ApiClient, mine: MineOption = False, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the scopes that persons have for a while now."""
    grants = client.get("/approvals/grants", mine=mine or None)["items"]
    rows = (
        (
            one["request_id"],
            one["by"],
            ", ".join(one["scopes"]),
            one["lent_until"],
            one["decided_by"],
            one["reason"],
        )
        for one in grants
    )
    show(output, grants, _GRANT_COLUMNS, rows, empty="nobody has scopes for a while")


@app.command("end")
@connected
def end_scopes(
    client: ApiClient,
    request: ApprovalRequestArgument,
    reason: GuardReasonOption,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End scopes for a while before their time."""
    _print(client.call("POST", f"/approvals/{segment(request)}/end", {"reason": reason}), output)
