"""`cordon waiver`: exceptions from a rule with an owner, a reason and an end."""

from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show

_COLUMNS: Final = ("waiver", "rule", "for", "owner", "ends", "granted by", "reason")
app = typer.Typer(help="Exceptions from a rule, with an end.", no_args_is_help=True)


@app.command("list")
@connected
def list_waivers(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the waivers in force, the next to end first; the record has the others."""
    found = client.get("/waivers")["items"]
    show(output, found, _COLUMNS, map(_row, found), empty="nothing is waived")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["waiver_id"], one["rule"], target(one), one["owner"], f"{ago(one['expires_at'])} ({one['expires_at']})",
        one["granted_by"], one["reason"],
    )  # fmt: skip


def target(one: dict[str, Any]) -> str:
    """Whom a waiver is for, in words."""
    return str(one["device"]) or (f"tag {one['tag']}" if one["tag"] else str(one["expression"]))


@app.command("add")
@connected
def add(
    client: ApiClient,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="policy/rule, or policy/*", show_default=False)],
    owner: Annotated[str, typer.Option(help="who answers for it", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", "-r", help="why; it is kept in the record", show_default=False)],
    duration: Annotated[str, typer.Option("--for", help="1h, 14d; at most 366d", show_default=False)],
    device: Annotated[str | None, typer.Option(help="for this device")] = None,
    tag: Annotated[str | None, typer.Option(help="for devices with this tag")] = None,
    where: Annotated[str | None, typer.Option(help="for devices whose facts make this expression true")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Put a waiver in force: a device that it covers goes on failing the rule, and nothing follows from that.

    Give one of --device, --tag and --where. When its time is over the rule bites by itself.
    """
    given = {"device": device, "tag": tag, "expression": where}
    if sum(value is not None for value in given.values()) != 1:
        raise CliError("give one of --device, --tag and --where", ExitCode.USAGE)
    body = {"rule": rule, "owner": owner, "reason": reason, "for": duration}
    found = client.call("POST", "/waivers", {**body, **{key: value for key, value in given.items() if value}})
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        what = f"{safe(found['rule'])} is waived for {safe(target(found))}"
        say(f"{found['waiver_id']}: {what} until {found['expires_at']}")


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    waiver: Annotated[str, typer.Argument(metavar="WAIVER", help="id of the waiver", show_default=False)],
) -> None:
    """End a waiver before its time: what it covered is acted on at once."""
    client.call("DELETE", f"/waivers/{segment(waiver)}")
    say(f"{safe(waiver)}: revoked")
