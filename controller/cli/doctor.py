"""`cordon doctor`: checks a controller, and compares it with the others on its store."""

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import ExitCode
from controller.cli.output import OutputFormat, OutputOption, safe, show

_COLUMNS = ("check", "result", "detail")


@connected
def doctor(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Check the controller; with several on PostgreSQL compare their keys and policies, and how EMQX shares messages.

    Keys are compared by their fingerprints. Exit status 1: a problem, or something that cannot be checked.
    """
    found = client.get("/doctor")
    rows = ((one["check"], one["result"], safe(one["detail"])) for one in found["items"])
    show(output, found, _COLUMNS, rows)
    if not found["ok"]:
        raise typer.Exit(ExitCode.FAILED)
