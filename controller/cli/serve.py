"""`cordon serve`: runs the controller."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli.connection_options import DEFAULT_CONFIG


def serve(
    config: Annotated[Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml")] = DEFAULT_CONFIG,
    force: Annotated[
        bool, typer.Option("--force", help="start with policies that would contain more than [guards] allows")
    ] = False,
) -> None:
    """Run the controller until SIGTERM or SIGINT; SIGHUP reads the policies again.

    Logs go to standard error. When everything listens, one line of JSON with the API's address goes to standard output.
    """
    from controller.app.run import run  # imports everything
    from controller.service.settings.settings import load_settings

    raise typer.Exit(run(load_settings(config), ready=_ready, force=force))


def _ready(addresses: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
