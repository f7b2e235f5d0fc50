"""`cordon guard`: shows the blast radius, and approves or dismisses deferred containments."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.confirmation import confirm_protected
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

_COLUMNS: Final = ("device", "why", "asks for", "since", "because of")
_PAGE: Final = 1000  # rows
app = typer.Typer(help="Containments that wait for an operator.", no_args_is_help=True)
HeldDevicesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[DEVICE]...", help="devices whose containment waits")
]
AllHeldOption = Annotated[bool, typer.Option("--all", help="all that wait because of the blast radius")]
GuardReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="why; it is kept in the audit log", show_default=False)
]
EvenProtectedOption = Annotated[
    bool, typer.Option("--even-protected", help="protected devices too, without confirmation")
]


@app.command("status")
@connected
def status(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show how much of the blast radius is used, and the containments that wait."""
    guard = client.get("/guard", limit=_PAGE)
    if output is OutputFormat.JSON:
        print_json(guard)
        return
    limits = [f"{guard['max_percent']:g}% of the fleet"]
    if guard["max_devices"] is not None:
        limits.insert(0, f"{guard['max_devices']} devices")
    say(f"contained by policy in the last {guard['window']}: {guard['contained']} of {guard['limit']}")
    say(f"limit: {' and '.join(limits)}; the fleet has {guard['fleet']} devices")
    say(f"you may contain without a second person: {guard['left_by_hand']} more devices")
    if guard["reached"]:
        say("REACHED: further containments by policy wait until those below are approved, dismissed or not required")
    show(output, guard, _COLUMNS, map(_row, guard["items"]), empty="no containment waits")
    if guard["waiting"] > len(guard["items"]):
        note(f"the longest waiting {len(guard['items'])} of {guard['waiting']}")


def _row(held: dict[str, Any]) -> tuple[object, ...]:
    why = f"{held['why']} ({held['protected']})" if held["protected"] else held["why"]
    return held["device_id"], why, held["level"], ago(held["since"]), ", ".join(held["causes"])


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
    """Contain devices whose containment waits, if rules still require it. Many at once need a second person."""
    body = {**_selected(devices, every=every), "reason": reason}

    def post(even_protected: bool) -> Any:
        return client.call("POST", "/guard/approve", {**body, "even_protected": even_protected})

    _print_outcome(confirm_protected(post, even_protected), "approved", output)


@app.command("dismiss")
@connected
def dismiss(
    client: ApiClient,
    reason: GuardReasonOption,
    devices: HeldDevicesArgument = None,
    every: AllHeldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Drop containments that wait, until their causes pass or a stronger containment is required."""
    body = {**_selected(devices, every=every), "reason": reason}
    _print_outcome(client.call("POST", "/guard/dismiss", body), "dismissed", output)


def _print_outcome(decided: dict[str, Any], word: str, output: OutputFormat) -> None:
    """Prints what was decided about each device, and of how many."""
    print_decided(decided, output)
    if output is OutputFormat.TABLE:
        count = len(decided["items"])
        say(f"{word}: {count} {'containment' if count == 1 else 'containments'}" if count else "no containment waits")


def _selected(devices: list[str] | None, *, every: bool) -> dict[str, Any]:
    if every == bool(devices):
        raise CliError("name devices, or give --all", ExitCode.USAGE)
    return {"all": True} if every else {"devices": devices}


def print_decided(decided: dict[str, Any], output: OutputFormat) -> None:
    """Prints the decision about each device.

    Raises:
        CliError: nothing was decided: a second person has to approve.
    """
    if output is OutputFormat.JSON:
        print_json(decided)
    else:
        rows = ((one["device_id"], one["decision"], one["level"]) for one in decided["items"])
        if decided["items"]:
            show(output, decided, ("device", "decision", "now"), rows)
    if decided.get("request"):
        raise second_person(decided["request"])


def second_person(request: dict[str, Any]) -> CliError:
    """The error for a request that a second person has to approve."""
    return CliError(
        f"{len(request['devices'])} more devices are more than one person may contain: nothing was done yet. Another "
        f"operator has to run `cordon approval approve {safe(request['request_id'])}` before {request['expires_at']}"
    )
