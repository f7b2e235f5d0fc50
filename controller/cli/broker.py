"""`cordon broker`: whether its nodes answer, and whether it holds what it should."""

from typing import Final

import typer

from controller.cli.client import Client
from controller.cli.connect import connected
from controller.cli.errors import ExitCode
from controller.cli.output import Format, Output, ago, note, safe, show

_NODES: Final = ("node", "answers", "detail")
_DRIFT: Final = ("device", "what differed")
app = typer.Typer(help="The broker's nodes and what they hold.", no_args_is_help=True)


@app.command("ping")
@connected
def ping(client: Client, output: Output = Format.TABLE) -> None:
    """Ask every node now; exit status 1 unless all answer and the MQTT link is up."""
    found = client.get("/broker")
    link, comparison = found["link"], found["comparison"]
    rows = [(one["url"], "yes" if one["answers"] else "no", one["detail"]) for one in found["nodes"]]
    protocol = f"MQTT {link['protocol']}" if link["protocol"] else "MQTT"
    up = f"{protocol}{': ' if link['detail'] else ''}{link['detail']}"
    rows.append((link["server"] or "MQTT link", "yes" if link["connected"] else "no", up))
    show(output, found, _NODES, rows)
    if output is Format.TABLE:
        trouble = f"; now: {safe(comparison['trouble'])}" if comparison["trouble"] else ""
        note(f"compared with the store {ago(comparison['last_pass'])}, {comparison['repaired']} repaired{trouble}")
    if not link["connected"] or not all(one["answers"] for one in found["nodes"]):
        raise typer.Exit(ExitCode.FAILED)


@app.command("drift")
@connected
def drift(client: Client, output: Output = Format.TABLE) -> None:
    """Compare the broker with the store now, and put right what differs."""
    found = client.call("POST", "/broker/reconcile")["items"]
    rows = ((one["device_id"] or "(broker)", one["what"]) for one in found)
    show(output, found, _DRIFT, rows, empty="the broker holds what it should")
