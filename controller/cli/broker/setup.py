"""`cordon broker setup`: shows, applies and undoes the settings that Cordon needs at the broker."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say
from controller.ports.broker_setup import NO_MATCH_STEP

NO_MATCH_QUESTION: Final = (
    "Deny what no rule allows, for all clients? Else a restricted device keeps topics that begin with `$`; "
    "say no while devices have no rules of their own"
)


@connected
def setup(
    client: ApiClient,
    plan: Annotated[bool, typer.Option("--plan", help="show what would change, and write nothing")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="make the changes after showing them")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="restore what was there before the first --apply")] = False,
    client_id: Annotated[
        bool, typer.Option("--with-client-id", help="take client ids from certificates, for all clients")
    ] = False,
    no_match: Annotated[
        bool, typer.Option("--with-no-match", help="deny what no rule allows, for all clients")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="write without asking")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Bring the broker to what Cordon needs: sources and their order, rules, the controller's user and limits.

    Every change is shown first. A second run finds nothing to do. Exit status of --plan: 1 while something is missing.
    """
    if plan + apply + undo != 1:
        raise CliError("give one of --plan, --apply, --undo", ExitCode.USAGE)
    options = {"client_id": client_id, "deny_unmatched": no_match}
    path = "/broker/setup/plan-undo" if undo else "/broker/setup/plan"
    planned = client.call("POST", path, None if undo else options)
    if apply and not yes and _asks_for_no_match(planned["by_hand"]):
        options["deny_unmatched"] = True
        planned = client.call("POST", path, options)
    if output is OutputFormat.JSON and plan:
        print_json(planned)
    if output is OutputFormat.TABLE:
        _show_changes(planned["changes"])
        _show_manual_steps(planned["by_hand"])
    if plan:
        if planned["changes"]:
            raise typer.Exit(ExitCode.FAILED)
        return
    if planned["changes"] and not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?")):
        raise CliError("the broker was not changed: confirm with --yes")
    if not planned["changes"] and apply:
        result: Any = {**planned, "left": []}
    else:
        result = client.call("POST", "/broker/setup/undo" if undo else "/broker/setup/apply", None if undo else options)
    if output is OutputFormat.JSON:
        print_json(result)
    elif result["changes"]:
        names = ", ".join(safe(change["what"]) for change in result["changes"])
        say(f"{'restored' if undo else 'made'}: {names}")
    for text in result["left"]:
        note(f"left: {safe(text)}")


def _asks_for_no_match(steps: Sequence[dict[str, str]]) -> bool:
    """Asks at a terminal, while what no rule matches is allowed, whether to deny it."""
    is_left = any(step["what"] == NO_MATCH_STEP for step in steps)
    return is_left and sys.stdin.isatty() and typer.confirm(NO_MATCH_QUESTION)


def _show_changes(changes: Sequence[dict[str, str]]) -> None:
    if not changes:
        say("nothing has to change at the broker")
    for change in changes:
        say(f"\n  {safe(change['what'])}")
        for mark, text in (("-", change["before"]), ("+", change["after"])):
            for line in text.splitlines():
                say(f"    {mark} {safe(line)}")
        if change["danger"]:
            say(f"    ! {safe(change['danger'])}")


def _show_manual_steps(steps: Sequence[dict[str, str]]) -> None:
    if steps:
        say("\nLeft to you, in the broker's own configuration:")
    for step in steps:
        say(f"\n  {safe(step['what'])}: {safe(step['why'])}")
        for line in step["configuration"].splitlines():
            say(f"    {safe(line)}")
