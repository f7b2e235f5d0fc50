"""`cordon quarantine plan` and `receipt`: the calls of a containment, before and after it is carried out."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.devices.app import DeviceArgument
from controller.cli.errors import ExitCode
from controller.cli.output import OutputFormat, OutputOption, exact, note, print_json, safe, say
from controller.cli.quarantine.results import until

PlanDurationOption = Annotated[str | None, typer.Option("--for", help="90s, 10m, 2h, 1d: the end of the ban")]


class PlanGoal(StrEnum):
    RESTRICT = "restrict"
    ISOLATE = "isolate"
    RELEASE = "release"


@connected
def plan(
    client: ApiClient,
    device: DeviceArgument,
    goal: Annotated[PlanGoal, typer.Argument(help="the decision to plan", show_default=False)],
    duration: PlanDurationOption = None,
    kick: Annotated[bool, typer.Option("--kick", help="as `restrict --kick`")] = False,
    clear_retained: Annotated[bool, typer.Option("--clear-retained", help="as `isolate --clear-retained`")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show every call that a containment or a release would make now, and the reads that prove it."""
    query = {"goal": goal.value, "for": duration, "kick": kick, "clear_retained": clear_retained}
    planned = client.get(f"/quarantine/{segment(device)}/plan", **query)
    if output is OutputFormat.JSON:
        print_json(planned)
        return
    say(f"{planned['goal']} {safe(planned['device_id'])}")
    for number, stage in enumerate(planned["stages"], 1):
        say()
        say(f"{number}.{' only if nothing before it is missing' if stage['gated'] else ''}".rstrip())
        for step in stage["acts"]:
            _print_step("do", step)
        for step in stage["looks"]:
            _print_step("see", step)
        if stage["repeated"]:
            say(f"   until that holds: {', '.join(stage['repeated'])}; then read again")


def _print_step(verb: str, step: dict[str, Any]) -> None:
    say(f"   {verb}: {step['what']}")
    for call in step["calls"]:
        where = f"  ({call['where']}{', ' if call['only'] else ''}{call['only']})"
        say(f"      {call['method']} {safe(call['path'])}{where}")
        if call["body"] is not None:
            say(f"         {json.dumps(call['body'])}")


@connected
def receipt(
    client: ApiClient,
    device: DeviceArgument,
    case: Annotated[str | None, typer.Option("--case", help="id of an earlier case  [the newest]")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show each call of a containment, what was observed on which node, and the seconds to the cut.

    Exit status 1 while the last decision is not proven yet.
    """
    case_receipt = client.get(f"/quarantine/{segment(device)}/receipt", case_id=case)
    closed = case_receipt["closed"]
    if output is OutputFormat.JSON:
        print_json(case_receipt)
    else:
        name = f"{safe(case_receipt['device_id'])}, case {case_receipt['case_id']}"
        say(f"{name}: {'proven' if closed else 'PARTLY PROVEN' if case_receipt['partial'] else 'NOT PROVEN YET'}")
        if case_receipt["in_force"] is not None:
            say(f"until: {until(case_receipt['in_force'])}")
        for decision in case_receipt["deeds"]:
            _print_decision(decision)
    if not closed:
        raise typer.Exit(ExitCode.FAILED)


def _print_decision(decision: dict[str, Any]) -> None:
    say()
    say(f"{decision['decided_at']}  {decision['level']}, by {safe(decision['by'])} ({safe(decision['reason'])})")
    say(f"   {safe(decision['text'])}")
    if decision["seconds"] is not None:
        say(f"   cut {exact(decision['seconds'])} after the report arrived, at {decision['cut_at']}")
    if decision["proven_at"]:
        say(f"   read back everywhere at {decision['proven_at']}")
    for one in decision["unread"]:
        note(f"   not read back from {safe(one['node'] or 'every node')}: {safe(one['reason'])}")
    for text in decision.get("left_open", ()):
        note(f"   left open: {safe(text)}")
    for trouble in decision["troubles"]:
        note(f"   failed attempt: {safe(trouble)}")
    if decision["refused"]:
        note(f"   refused: {safe(decision['refused'])}")
    for line in decision["lines"] or decision["attempted"]:
        where = f" at {safe(line['node'])}" if line["node"] else ""
        if line["call"]:
            say(f"   {safe(line['call'])}{where}: {safe(line['answer'])} ({exact(line['seconds'])})")
        else:
            say(f"   observed{where}: {safe(line['what'])}: {safe(line['answer'])}")
