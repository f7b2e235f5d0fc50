"""`cordon backup` and `cordon restore`: work on the store's file, with or without a running controller."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.output import say

BackupConfigOption = Annotated[
    Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with the path of the store")
]


def backup(
    target: Annotated[Path, typer.Argument(help="file to create; it must not exist")],
    config: BackupConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy a consistent snapshot of the store to TARGET, also while the controller runs.

    The copy is verified. It does not contain keys and configuration: keep a copy of their folder too.
    """
    from controller.app.offline import back_up_store
    from controller.service.settings.settings import load_settings  # imported late: pydantic takes a while

    size = back_up_store(load_settings(config).store.path, target)
    say(f"{target}: {size} bytes, verified")


def restore(
    source: Annotated[Path, typer.Argument(help="a file made by cordon backup")],
    config: BackupConfigOption = DEFAULT_CONFIG,
) -> None:
    """Replace the store with a backup; the controller has to be stopped.

    The backup is verified first. The present store is kept under another name.
    """
    from controller.app.offline import restore_store
    from controller.service.settings.settings import load_settings

    path = load_settings(config).store.path
    aside = restore_store(source, path)
    say(f"{path}: restored from {source}")
    if aside is not None:
        say(f"the previous store is now {aside}")
