"""`cordon backup` and `cordon restore`: on the machine where the store lies, with or without a running controller."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.output import say

BackupConfigOption = Annotated[
    Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml, which names the store")
]


def backup(
    target: Annotated[Path, typer.Argument(help="file to make; it must not exist")],
    config: BackupConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy the store to TARGET, whole and of one moment, also while the controller runs.

    The copy is verified before it counts. Keys and configuration are not in it: keep a copy of their folder too.
    """
    from controller.app.offline import back_up_store
    from controller.service.settings.settings import load_settings  # pydantic takes a while to load

    size = back_up_store(load_settings(config).store.path, target)
    say(f"{target}: {size} bytes, verified")


def restore(
    source: Annotated[Path, typer.Argument(help="a file made by cordon backup")],
    config: BackupConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put a backup in the place of the store; the controller has to be stopped.

    The backup is verified first. The store that is there now is kept beside it.
    """
    from controller.app.offline import restore_store
    from controller.service.settings.settings import load_settings

    path = load_settings(config).store.path
    aside = restore_store(source, path)
    say(f"{path}: restored from {source}")
    if aside is not None:
        say(f"the store that was there is now {aside}")
