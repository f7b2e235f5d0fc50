"""`cordon quarantine plan` and `receipt`: how a containment will be carried out, and how it was."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.devices import DeviceArgument
from controller.cli.errors import ExitCode
from controller.cli.output import OutputFormat, OutputOption, exact, note, print_json, safe, say

PlanDurationOption = Annotated[str | None, typer.Option("--for", help="90s, 10m, 2h, 1d: the end of the ban")]


class PlanGoal(StrEnum):
    """What is to be shown."""

    RESTRICT = "restrict"
    ISOLATE = "isolate"
    RELEASE = "release"


@connected
def plan(
    client: ApiClient,
    device: DeviceArgument,
    goal: Annotated[PlanGoal, typer.Argument(help="what is to be done", show_default=False)],
    duration: PlanDurationOption = None,
    kick: Annotated[bool, typer.Option("--kick", help="as `restrict --kick`")] = False,
    clear_retained: Annotated[bool, typer.Option("--clear-retained", help="as `isolate --clear-retained`")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show every call that a containment or a release would make now, and the reads that prove it."""
    query = {"goal": goal.value, "for": duration, "kick": kick, "clear_retained": clear_retained}
    found = client.get(f"/quarantine/{segment(device)}/plan", **query)
    if output is OutputFormat.JSON:
        print_json(found)
        return
    say(f"{found['goal']} {safe(found['device_id'])}")
    for number, stage in enumerate(found["stages"], 1):
        say()
        say(f"{number}.{' only if nothing before it is missing' if stage['gated'] else ''}".rstrip())
        for point in stage["acts"]:
            _point("do", point)
        for point in stage["looks"]:
            _point("see", point)
        if stage["repeated"]:
            say(f"   while it is not so: {', '.join(stage['repeated'])}; then look again")


def _point(verb: str, point: dict[str, Any]) -> None:
    say(f"   {verb}: {point['what']}")
    for call in point["calls"]:
        where = f"  ({call['where']}{', ' if call['only'] else ''}{call['only']})"
        say(f"      {call['method']} {safe(call['path'])}{where}")
        if call["body"] is not None:
            say(f"         {json.dumps(call['body'])}")


@connected
def receipt(
    client: ApiClient,
    device: DeviceArgument,
    case: Annotated[str | None, typer.Option("--case", help="an earlier one; default: the newest")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show each call of a containment, what was observed on which node, and the seconds to the cut.

    Exit status 1 while the last decision is not proven yet.
    """
    found = client.get(f"/quarantine/{segment(device)}/receipt", case_id=case)
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        say(f"{safe(found['device_id'])}, case {found['case_id']}: {'proven' if found['closed'] else 'NOT PROVEN YET'}")
        for deed in found["deeds"]:
            _deed(deed)
    if not found["closed"]:
        raise typer.Exit(ExitCode.FAILED)


def _deed(deed: dict[str, Any]) -> None:
    say()
    say(f"{deed['decided_at']}  {deed['level']}, by {safe(deed['by'])} ({safe(deed['reason'])})")
    say(f"   {safe(deed['text'])}")
    if deed["seconds"] is not None:
        say(f"   cut {exact(deed['seconds'])} after the report arrived, at {deed['cut_at']}")
    if deed["proven_at"]:
        say(f"   read back everywhere at {deed['proven_at']}")
    for trouble in deed["troubles"]:
        note(f"   in trouble: {safe(trouble)}")
    if deed["refused"]:
        note(f"   refused: {safe(deed['refused'])}")
    for line in deed["lines"] or deed["attempted"]:
        where = f" at {safe(line['node'])}" if line["node"] else ""
        if line["call"]:
            say(f"   {safe(line['call'])}{where}: {safe(line['answer'])} ({exact(line['seconds'])})")
        else:
            say(f"   observed{where}: {safe(line['what'])}: {safe(line['answer'])}")
