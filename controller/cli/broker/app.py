"""`cordon broker`: whether the nodes answer, and whether the broker's state is what the store requires."""

from typing import Annotated, Final

import typer

from controller.api.client import ApiClient
from controller.cli.broker import audit, ports, setup
from controller.cli.connection_options import connected
from controller.cli.errors import ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, safe, show

_NODES: Final = ("node", "answers", "detail")
_DRIFT: Final = ("device", "what differs", "since", "state", "how, or why not", "node")
_STATES: Final = {"alerted": "not repaired"}
app = typer.Typer(help="The broker's nodes, settings and state.", no_args_is_help=True)
app.command("audit")(audit.audit)
app.command("ports")(ports.ports)
app.command("setup")(setup.setup)


@app.command("ping")
@connected
def ping(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Ask every node now; exit status 1 unless all answer and the MQTT link is up."""
    status = client.get("/broker")
    link, comparison = status["link"], status["comparison"]
    rows = [(node["url"], "yes" if node["answers"] else "no", node["detail"]) for node in status["nodes"]]
    protocol = f"MQTT {link['protocol']}" if link["protocol"] else "MQTT"
    detail = f"{protocol}{': ' if link['detail'] else ''}{link['detail']}"
    rows.append((link["server"] or "MQTT link", "yes" if link["connected"] else "no", detail))
    show(output, status, _NODES, rows)
    if output is OutputFormat.TABLE:
        trouble = f"; now: {safe(comparison['trouble'])}" if comparison["trouble"] else ""
        note(f"compared with the store {ago(comparison['last_pass'])}, {comparison['repaired']} repaired{trouble}")
    if not link["connected"] or not all(node["answers"] for node in status["nodes"]):
        raise typer.Exit(ExitCode.FAILED)


@app.command("drift")
@connected
def drift(
    client: ApiClient,
    no_compare: Annotated[
        bool, typer.Option("--no-compare", help="show what the running comparisons found, without a new one")
    ] = False,
    closed: Annotated[bool, typer.Option("--all", help="also differences that have ended")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Compare every node with the store now, repair differences where that is safe, and show them.

    Exit status 1 while a difference is left to you, `not repaired`; 3 when no node answers.
    """
    report = client.get("/broker/drift") if no_compare else client.call("POST", "/broker/reconcile")
    entries = report["items"] + (report["closed"] if closed else [])
    rows = (
        (
            entry["device_id"] or "(broker)",
            entry["what"],
            ago(entry["since"]),
            _STATES.get(entry["state"], entry["state"]),
            entry["detail"],
            entry["node"],
        )
        for entry in entries
    )
    show(output, entries, _DRIFT, rows, empty="no difference between broker and store")
    if any(entry["state"] == "alerted" for entry in report["items"]):
        raise typer.Exit(ExitCode.FAILED)
