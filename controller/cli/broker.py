"""`cordon broker`: whether its nodes answer, and whether it holds what it should."""

from typing import Annotated, Final

import typer

from controller.api.client import ApiClient
from controller.cli import broker_audit, broker_ports, broker_setup
from controller.cli.connection_options import connected
from controller.cli.errors import ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, safe, show

_NODES: Final = ("node", "answers", "detail")
_DRIFT: Final = ("device", "what differs", "since", "state", "how, or why not", "node")
_STATES: Final = {"alerted": "not repaired"}
app = typer.Typer(help="The broker's nodes and what they hold.", no_args_is_help=True)
app.command("audit")(broker_audit.audit)
app.command("ports")(broker_ports.ports)
app.command("setup")(broker_setup.setup)


@app.command("ping")
@connected
def ping(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Ask every node now; exit status 1 unless all answer and the MQTT link is up."""
    found = client.get("/broker")
    link, comparison = found["link"], found["comparison"]
    rows = [(one["url"], "yes" if one["answers"] else "no", one["detail"]) for one in found["nodes"]]
    protocol = f"MQTT {link['protocol']}" if link["protocol"] else "MQTT"
    up = f"{protocol}{': ' if link['detail'] else ''}{link['detail']}"
    rows.append((link["server"] or "MQTT link", "yes" if link["connected"] else "no", up))
    show(output, found, _NODES, rows)
    if output is OutputFormat.TABLE:
        trouble = f"; now: {safe(comparison['trouble'])}" if comparison["trouble"] else ""
        note(f"compared with the store {ago(comparison['last_pass'])}, {comparison['repaired']} repaired{trouble}")
    if not link["connected"] or not all(one["answers"] for one in found["nodes"]):
        raise typer.Exit(ExitCode.FAILED)


@app.command("drift")
@connected
def drift(
    client: ApiClient,
    look_only: Annotated[
        bool, typer.Option("--no-compare", help="show what the running comparisons found, without a new one")
    ] = False,
    closed: Annotated[bool, typer.Option("--all", help="also what differed and does not any more")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Compare every node with the store now, put right what differs where that is safe, and show it.

    Exit status 1 while something differs that is left to you: `not repaired`.
    """
    found = client.get("/broker/drift") if look_only else client.call("POST", "/broker/reconcile")
    shown = found["items"] + (found["closed"] if closed else [])
    rows = (
        (
            one["device_id"] or "(broker)",
            one["what"],
            ago(one["since"]),
            _STATES.get(one["state"], one["state"]),
            one["detail"],
            one["node"],
        )
        for one in shown
    )
    show(output, shown if closed else found["items"], _DRIFT, rows, empty="the broker holds what it should")
    if any(one["state"] == "alerted" for one in found["items"]):
        raise typer.Exit(ExitCode.FAILED)
