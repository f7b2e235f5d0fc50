"""`cordon waiver`: temporary exceptions from a rule, each with an owner and a reason."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show

_COLUMNS: Final = ("waiver", "rule", "for", "owner", "ends", "granted by", "reason")
app = typer.Typer(help="Temporary exceptions from rules.", no_args_is_help=True)


@app.command("list")
@connected
def list_waivers(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the waivers in force, the next to end first; the audit log has the others."""
    waivers = client.get("/waivers")["items"]
    show(output, waivers, _COLUMNS, map(_row, waivers), empty="nothing is waived")


def _row(waiver: dict[str, Any]) -> tuple[object, ...]:
    end = f"{ago(waiver['expires_at'])} ({waiver['expires_at']})"
    columns = (waiver["waiver_id"], waiver["rule"], target(waiver), waiver["owner"], end)
    return (*columns, waiver["granted_by"], waiver["reason"])


def target(waiver: dict[str, Any]) -> str:
    """The devices that a waiver covers."""
    return str(waiver["device"]) or (f"tag {waiver['tag']}" if waiver["tag"] else str(waiver["expression"]))


@app.command("add")
@connected
def add(
    client: ApiClient,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="policy/rule, or policy/*", show_default=False)],
    owner: Annotated[str, typer.Option(help="person who is responsible", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", "-r", help="why; it is kept in the audit log", show_default=False)],
    duration: Annotated[str, typer.Option("--for", help="1h, 14d; at most 366d", show_default=False)],
    device: Annotated[str | None, typer.Option(help="for this device")] = None,
    tag: Annotated[str | None, typer.Option(help="for devices with this tag")] = None,
    where: Annotated[str | None, typer.Option(help="for devices whose facts make this expression true")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Create a waiver: a device that it covers can fail the rule without a response.

    Give one of --device, --tag and --where. When the waiver ends, the rule applies again.
    """
    given = {"device": device, "tag": tag, "expression": where}
    if sum(value is not None for value in given.values()) != 1:
        raise CliError("give one of --device, --tag and --where", ExitCode.USAGE)
    body = {"rule": rule, "owner": owner, "reason": reason, "for": duration}
    created = client.call("POST", "/waivers", {**body, **{key: value for key, value in given.items() if value}})
    if output is OutputFormat.JSON:
        print_json(created)
    else:
        text = f"{safe(created['rule'])} is waived for {safe(target(created))}"
        say(f"{created['waiver_id']}: {text} until {created['expires_at']}")


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    waiver: Annotated[str, typer.Argument(metavar="WAIVER", help="id of the waiver", show_default=False)],
) -> None:
    """End a waiver early: the rule applies again at once."""
    client.call("DELETE", f"/waivers/{segment(waiver)}")
    say(f"{safe(waiver)}: revoked")
