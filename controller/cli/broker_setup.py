"""`cordon broker setup`: show what the broker lacks, make it so, take it back."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say


@connected
def setup(
    client: ApiClient,
    plan: Annotated[bool, typer.Option("--plan", help="show what would change, and write nothing")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="make the changes after showing them")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="put back what was there before the first --apply")] = False,
    client_id: Annotated[
        bool, typer.Option("--with-client-id", help="take client ids from certificates, for all clients")
    ] = False,
    no_match: Annotated[
        bool, typer.Option("--with-no-match", help="deny what no rule allows, for all clients")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do it without asking")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Bring the broker to what Cordon needs: sources and their order, rules, the controller's user and limits.

    Every change is shown first. A second run finds nothing to do. Exit status of --plan: 1 while something is missing.
    """
    if plan + apply + undo != 1:
        raise CliError("give one of --plan, --apply, --undo", ExitCode.USAGE)
    options = {"client_id": client_id, "deny_unmatched": no_match}
    path = "/broker/setup/plan-undo" if undo else "/broker/setup/plan"
    found = client.call("POST", path, None if undo else options)
    if output is OutputFormat.JSON and plan:
        print_json(found)
    if output is OutputFormat.TABLE:
        _show(found["changes"], "nothing has to change at the broker")
        _show_by_hand(found["by_hand"])
    if plan:
        if found["changes"]:
            raise typer.Exit(ExitCode.FAILED)
        return
    if found["changes"] and not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?")):
        raise CliError("the broker was left as it is: agree with --yes")
    if not found["changes"] and apply:
        made: Any = {**found, "left": []}
    else:
        made = client.call("POST", "/broker/setup/undo" if undo else "/broker/setup/apply", None if undo else options)
    if output is OutputFormat.JSON:
        print_json(made)
    elif made["changes"]:
        say(f"{'put back' if undo else 'made'}: {', '.join(safe(one['what']) for one in made['changes'])}")
    for text in made["left"]:
        note(f"left: {safe(text)}")


def _show(changes: Sequence[dict[str, str]], empty: str) -> None:
    if not changes:
        say(empty)
    for change in changes:
        say(f"\n  {safe(change['what'])}")
        for mark, text in (("-", change["before"]), ("+", change["after"])):
            for line in text.splitlines():
                say(f"    {mark} {safe(line)}")
        if change["danger"]:
            say(f"    ! {safe(change['danger'])}")


def _show_by_hand(left: Sequence[dict[str, str]]) -> None:
    if left:
        say("\nLeft to you, in the broker's own configuration:")
    for one in left:
        say(f"\n  {safe(one['what'])}: {safe(one['why'])}")
        for line in one["configuration"].splitlines():
            say(f"    {safe(line)}")
