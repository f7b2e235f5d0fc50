"""`cordon guard`: how much policies may contain at once, what waits for an operator, and what becomes of it."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.confirmation import confirm_protected
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

_COLUMNS: Final = ("device", "why", "asks for", "since", "because of")
_PAGE: Final = 1000  # rows
app = typer.Typer(help="What waits for an operator, and why.", no_args_is_help=True)
HeldDevicesArgument = Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="devices that wait")]
AllHeldOption = Annotated[bool, typer.Option("--all", help="all that wait because of the blast radius")]
GuardReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="why; it is kept in the record", show_default=False)
]
EvenProtectedOption = Annotated[
    bool, typer.Option("--even-protected", help="protected devices too, without being asked twice")
]


@app.command("status")
@connected
def status(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show how much of the blast radius is used, and what waits."""
    found = client.get("/guard", limit=_PAGE)
    if output is OutputFormat.JSON:
        print_json(found)
        return
    bounds = [f"{found['max_percent']:g}% of the fleet"]
    if found["max_devices"] is not None:
        bounds.insert(0, f"{found['max_devices']} devices")
    say(f"contained by policy in the last {found['window']}: {found['contained']} of {found['limit']}")
    say(f"limit: {' and '.join(bounds)}; the fleet has {found['fleet']} devices")
    say(f"by hand, without a second person: {found['left_by_hand']} more devices")
    if found["reached"]:
        say("REACHED: every further containment by policy waits until what waits is approved, dismissed or passes")
    show(output, found, _COLUMNS, map(_row, found["items"]), empty="nothing waits")
    if found["waiting"] > len(found["items"]):
        note(f"the longest waiting {len(found['items'])} of {found['waiting']}")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    why = f"{one['why']} ({one['protected']})" if one["protected"] else one["why"]
    return one["device_id"], why, one["level"], ago(one["since"]), ", ".join(one["causes"])


@app.command("approve")
@connected
def approve(
    client: ApiClient,
    reason: GuardReasonOption,
    devices: HeldDevicesArgument = None,
    every: AllHeldOption = False,
    even_protected: EvenProtectedOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Contain what waits, as far as the devices still fail. Many at once need a second person."""
    body = {**_selected(devices, every=every), "reason": reason}
    found = confirm_protected(
        lambda sure: client.call("POST", "/guard/approve", {**body, "even_protected": sure}), even_protected
    )
    print_decided(found, output)


@app.command("dismiss")
@connected
def dismiss(
    client: ApiClient,
    reason: GuardReasonOption,
    devices: HeldDevicesArgument = None,
    every: AllHeldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Leave what waits uncontained: until its causes pass, or more is asked for."""
    body = {**_selected(devices, every=every), "reason": reason}
    print_decided(client.call("POST", "/guard/dismiss", body), output)


def _selected(devices: list[str] | None, *, every: bool) -> dict[str, Any]:
    if every == bool(devices):
        raise CliError("name devices, or give --all", ExitCode.USAGE)
    return {"all": True} if every else {"devices": devices}


def print_decided(found: dict[str, Any], output: OutputFormat) -> None:
    """What was decided for each device.

    Raises:
        CliError: nothing was: a second person has to approve.
    """
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        rows = ((one["device_id"], one["decision"], one["level"]) for one in found["items"])
        if found["items"]:
            show(output, found, ("device", "decided", "now"), rows)
    if found.get("request"):
        raise second_person(found["request"])


def second_person(request: dict[str, Any]) -> CliError:
    """Why nothing happened yet, and what has to."""
    return CliError(
        f"{len(request['devices'])} more devices are more than one person may contain: nothing was done yet. Another "
        f"operator has to say `cordon approval approve {safe(request['request_id'])}` before {request['expires_at']}"
    )
