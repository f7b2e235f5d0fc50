"""`cordon backup` and `cordon restore`: work on the store's file, with or without a running controller."""

from pathlib import Path
from typing import Annotated, Final

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import safe, say

BackupConfigOption = Annotated[
    Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with the path of the store")
]

_DUMP: Final = (
    "the store is on PostgreSQL: its own tools copy it, `pg_dump --format=custom` and `pg_restore`, or your backups of"
    " the server; `cordon store copy` moves it to a file of SQLite"
)


def backup(
    target: Annotated[Path, typer.Argument(help="file to create; it must not exist")],
    config: BackupConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy a consistent snapshot of the store to TARGET, also while the controller runs.

    The copy is verified. It does not contain keys and configuration: keep a copy of their folder too.
    """
    from controller.app.offline import back_up_store
    from controller.service.settings.settings import load_settings  # imported late: pydantic takes a while

    place = load_settings(config).store
    if place.url is not None:
        raise CliError(_DUMP, ExitCode.USAGE)
    size = back_up_store(place.path, target)
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

    settings = load_settings(config)
    if settings.store.url is not None:
        raise CliError(_DUMP, ExitCode.USAGE)
    path = settings.store.path
    lost = _losses(source, path, has_authority=settings.authority.folder is not None)
    aside = restore_store(source, path)
    say(f"{path}: restored from {source}")
    if aside is not None:
        say(f"the previous store is now {aside}")
    for text in lost:
        say(text)


def _losses(source: Path, path: Path, *, has_authority: bool) -> list[str]:
    """Returns what the backup does not have, as lines."""
    from controller.app.offline import restore_losses
    from controller.ports.errors import StoreError

    if not path.exists():
        return ["there was no store here: what changed since the backup is unknown"] if has_authority else []
    try:
        losses, has_marks = restore_losses(source, path)
    except StoreError as e:
        return [f"what was lost since the backup is unknown: {e}"]
    lines = [f"LOST: {one.what}: {', '.join(map(safe, one.names))}" for one in losses]
    if has_authority and not has_marks:
        lines.append(f"LOST: there is no {path}.revocations: certificates revoked since the backup are valid again")
    return lines
