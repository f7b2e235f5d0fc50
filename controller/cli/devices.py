"""`cordon devices`: the fleet, one device with the reasons for its state, and its labels."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.device_view import print_portrait
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, say, show

MAX_TIMELINE: Final = 500  # lines; the API's bound
app = typer.Typer(help="The fleet: list, show, label.", no_args_is_help=True)
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="id of the device", show_default=False)]
COLUMNS: Final = ("device", "containment", "proven", "seen", "fails", "unknown", "class")


def proven_word(case: dict[str, Any]) -> str:
    """Whether the broker holds the case, in a word; what troubles it is told by `devices show`."""
    return "yes" if case["proven"] else "no, in trouble" if case["trouble"] else "not yet"


def containment_row(device: dict[str, Any]) -> tuple[object, ...]:
    """A line of the listing."""
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
    stale: Annotated[bool | None, typer.Option("--stale/--fresh", help="silent ones only, or the others")] = None,
    rule: Annotated[str | None, typer.Option(help="those that fail this rule")] = None,
    search: Annotated[str | None, typer.Option(help="part of id, class or a tag")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many; all without it")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List devices with their containment and what they fail."""
    found = list(client.pages("/devices", limit, level=level, stale=stale, rule=rule, search=search))
    show(output, found, COLUMNS, map(containment_row, found), empty="no device fits")


@app.command("show")
@connected
def show_device(
    client: ApiClient,
    device: DeviceArgument,
    lines: Annotated[int, typer.Option(min=0, max=MAX_TIMELINE, help="lines of the record")] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show a device, and why it is as it is: report, rule, decision, each call to the broker, what was read back."""
    found = client.get(f"/devices/{segment(device)}", timeline=lines)
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        print_portrait(found)


@app.command("label")
@connected
def label_device(
    client: ApiClient,
    device: DeviceArgument,
    device_class: Annotated[str | None, typer.Option("--class", help="device.class of the policies")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="device.tags of the policies; repeat, replaces all")] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="take all tags away")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Give a device a class and tags, which policies may refer to."""
    if tag and no_tags:
        raise CliError("--tag and --no-tags contradict each other", ExitCode.USAGE)
    body: dict[str, Any] = {}
    if device_class is not None:
        body["device_class"] = device_class
    if tag or no_tags:
        body["tags"] = tag or []
    if not body:
        raise CliError("nothing to change: give --class, --tag or --no-tags", ExitCode.USAGE)
    found = client.call("PUT", f"/devices/{segment(device)}/labels", body)
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        tags = ", ".join(found["tags"]) or "none"
        say(f"{found['device_id']}: class {found['device_class'] or 'none'}, tags {tags}")


@app.command("unsign")
@connected
def unsign_device(
    client: ApiClient,
    device: DeviceArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="for the record")],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Forget by which key a device signs, and take its reports without a signature until it signs again."""
    found = client.call("POST", f"/devices/{segment(device)}/unsigned", {"reason": reason})
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        say(f"{device}: reports without a signature are taken again")
