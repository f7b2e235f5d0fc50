"""`cordon devices`: lists the fleet, shows a device with the reasons for its state, sets labels."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.devices.view import print_device
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, moment, print_json, say, show

MAX_TIMELINE: Final = 500  # audit lines; the API's limit
app = typer.Typer(help="The fleet: list, show, label.", no_args_is_help=True)
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="id of the device", show_default=False)]
COLUMNS: Final = ("device", "containment", "proven", "seen", "fails", "unknown", "class")


def proven_word(case: dict[str, Any]) -> str:
    """Whether the broker was seen to hold the case; `devices show` has the trouble."""
    if case.get("unread", ()):
        return f"partial, not read: {', '.join(one['node'] or 'a node' for one in case['unread'])}"
    if case["proven"] and case.get("left_open"):
        return f"yes, {len(case['left_open'])} left open"
    return "yes" if case["proven"] else "no, in trouble" if case["trouble"] else "not yet"


def containment_row(device: dict[str, Any]) -> tuple[object, ...]:
    case, counts = device["case"], device["not_satisfied"]
    proven = "-" if case is None else proven_word(case)
    seen = ("stale, " if device["stale"] else "") + ago(device["last_seen"])
    failing = ", ".join(device["failing"]) or "-"
    unknown = counts.get("unknown", 0) + counts.get("error", 0)
    return device["device_id"], device["level"], proven, seen, failing, unknown or "-", device["device_class"] or "-"


@app.command("list")
@connected
def list_devices(
    client: ApiClient,
    level: Annotated[str | None, typer.Option(help="none, restricted or isolated")] = None,
    stale: Annotated[bool | None, typer.Option("--stale/--fresh", help="only stale devices, or the others")] = None,
    online: Annotated[bool | None, typer.Option("--online/--offline", help="by its last known connection")] = None,
    pending: Annotated[bool | None, typer.Option("--pending", help="whose containment a guard holds back")] = None,
    rule: Annotated[str | None, typer.Option(help="only devices that fail this rule")] = None,
    result: Annotated[str | None, typer.Option(help="fail, unknown or error: of the rule, or of any rule")] = None,
    severity: Annotated[str | None, typer.Option(help="that fail a rule of at least this severity")] = None,
    waived: Annotated[
        bool | None, typer.Option("--waived/--not-waived", help="whether a waiver covers the rule that fails")
    ] = None,
    device_class: Annotated[str | None, typer.Option("--class", help="only devices of this class")] = None,
    tag: Annotated[str | None, typer.Option(help="only devices with this tag")] = None,
    agent: Annotated[str | None, typer.Option(help="only with this version of the agent")] = None,
    seen_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="not seen since: 2h ago as 2h, or 2026-11-23T10:00:00Z")
    ] = None,
    search: Annotated[str | None, typer.Option(help="part of id, class or a tag")] = None,
    sort: Annotated[
        str | None, typer.Option(help="id, last_seen, level, severity, failing or class; -level is in reverse  [id]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="maximum number  [all]")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List devices with their containment and the rules they fail."""
    query = {"level": level, "stale": stale, "online": online, "pending": pending, "rule": rule, "result": result}
    query |= {"severity": severity, "waived": waived, "class": device_class, "tag": tag, "agent": agent}
    query |= {"seen_before": seen_before and moment(seen_before), "search": search, "sort": sort}
    devices = list(client.pages("/devices", limit, **query))
    show(output, devices, COLUMNS, map(containment_row, devices), empty="no device matches")


@app.command("show")
@connected
def show_device(
    client: ApiClient,
    device: DeviceArgument,
    lines: Annotated[int, typer.Option(min=0, max=MAX_TIMELINE, help="audit lines")] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show a device and the reasons for its state: report, rules, decisions, calls to the broker, read-backs."""
    details = client.get(f"/devices/{segment(device)}", timeline=lines)
    if output is OutputFormat.JSON:
        print_json(details)
    else:
        print_device(details)


@app.command("label")
@connected
def label_device(
    client: ApiClient,
    device: DeviceArgument,
    device_class: Annotated[str | None, typer.Option("--class", help="device.class of the policies")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="device.tags of the policies; repeat; replaces all")] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="remove all tags")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Set a device's class and tags, which policies can refer to."""
    if tag and no_tags:
        raise CliError("--tag and --no-tags contradict each other", ExitCode.USAGE)
    body: dict[str, Any] = {}
    if device_class is not None:
        body["device_class"] = device_class
    if tag or no_tags:
        body["tags"] = tag or []
    if not body:
        raise CliError("nothing to change: give --class, --tag or --no-tags", ExitCode.USAGE)
    labelled = client.call("PUT", f"/devices/{segment(device)}/labels", body)
    if output is OutputFormat.JSON:
        print_json(labelled)
    else:
        tags = ", ".join(labelled["tags"]) or "none"
        say(f"{labelled['device_id']}: class {labelled['device_class'] or 'none'}, tags {tags}")


@app.command("unsign")
@connected
def unsign_device(
    client: ApiClient,
    device: DeviceArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="why; it is kept in the audit log")],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Forget the key with which a device signs, and accept unsigned reports until it signs again."""
    device_state = client.call("POST", f"/devices/{segment(device)}/unsigned", {"reason": reason})
    if output is OutputFormat.JSON:
        print_json(device_state)
    else:
        say(f"{device}: unsigned reports are accepted again")
