"""`cordon update init` and `cordon update keys`: the ceremonies with offline keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, print_json, say, show
from controller.cli.update_options import (
    OfflineKeysOption,
    RepositoryOption,
    RootPassphraseOption,
    TargetsPassphraseOption,
    UpdatesConfigOption,
    asker,
    folder_of,
)

if TYPE_CHECKING:  # loaded late: every `cordon --help` would wait for it
    from controller.app.offline import UpdatesFolder

app = typer.Typer(help="Keys that sign updates: replace, sign again, look.", no_args_is_help=True)
_Role = Annotated[str, typer.Argument(help="root, targets, snapshot or timestamp")]


def init(
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="keys of the root role")] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, max=16, help="how many of them have to sign")] = 2,
    targets_keys: Annotated[int, typer.Option(min=1, max=16, help="keys of the targets role")] = 2,
    targets_threshold: Annotated[int, typer.Option(min=1, max=16, help="how many of them have to sign")] = 1,
    root_passphrase_file: RootPassphraseOption = None,
    targets_passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Make the repository: offline keys of root and targets behind passphrases, online keys of snapshot and timestamp.

    The keys in --keys decide what every device installs: take them off this machine when they are made.
    """
    folder = folder_of(repository, config)
    root, targets = (root_keys, root_threshold), (targets_keys, targets_threshold)
    folder.create(keys, root, targets, asker(targets_passphrase_file, root_passphrase_file))
    say(f"made   {folder.base}  (repository of updates)")
    say(f"made   {keys.absolute()}  (offline keys: move them off this machine, each to its keeper)")
    say("Install the first root on every device, as updates.root of its agent.toml:")
    say(f"  {folder.metadata / '1.root.json'}")


@app.command("rotate")
def rotate(
    role: _Role,
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    count: Annotated[int | None, typer.Option("--count", min=1, max=16, help="of the new keys  [as before]")] = None,
    threshold: Annotated[int | None, typer.Option(min=1, max=16, help="that have to sign  [as before]")] = None,
    root_passphrase_file: RootPassphraseOption = None,
    targets_passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Replace all keys of a role by new ones. Old root keys sign it, so that devices follow; then destroy the old."""
    folder = folder_of(repository, config)
    plan = None
    if count is not None or threshold is not None:
        held = folder.root().roles.get(role)
        if held is None:
            raise CliError(f"no role {role}: there are root, targets, snapshot and timestamp", ExitCode.USAGE)
        plan = (count or len(held.keyids), threshold or held.threshold)
    made = folder.rotate(keys, role, plan, asker(targets_passphrase_file, root_passphrase_file))
    say(f"{role}: {len(made)} new keys: {', '.join(one[:16] for one in made)}")
    say_what_is_left(folder)


@app.command("renew")
def renew(
    role: Annotated[str, typer.Argument(help="root or targets")],
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    root_passphrase_file: RootPassphraseOption = None,
    targets_passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Sign an offline role again before it ends, with the same keys and content."""
    folder = folder_of(repository, config)
    ends = folder.renew(keys, role, asker(targets_passphrase_file, root_passphrase_file))
    say(f"{role} holds until {ends:%Y-%m-%d}")
    say_what_is_left(folder)


@app.command("list")
def list_keys(
    repository: RepositoryOption = None, config: UpdatesConfigOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """List which keys sign which role, and how many of them have to."""
    root = folder_of(repository, config).root()
    found = [
        {"role": name, "threshold": role.threshold, "keys": list(role.keyids)} for name, role in root.roles.items()
    ]
    if output is OutputFormat.JSON:
        print_json(found)
        return
    rows = [
        (one, f"{role.threshold} of {len(role.keyids)}", keyid[:16], root.keys[keyid].keytype)
        for one, role in root.roles.items()
        for keyid in role.keyids
    ]
    show(output, found, ("role", "signatures", "key", "type"), rows)


def say_what_is_left(folder: "UpdatesFolder") -> None:
    """Where the online keys are elsewhere, the controller there has to sign too."""
    if not folder.has_online_keys:
        say(f"Copy {folder.served} to the controller: it signs snapshot and timestamp there, and devices see it then.")
