"""`cordon update init` and `cordon update keys`: creates, replaces and lists the keys that sign updates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, print_json, say, show
from controller.cli.updates.options import (
    OfflineKeysOption,
    RepositoryOption,
    RootPassphraseOption,
    TargetsPassphraseOption,
    UpdatesConfigOption,
    open_folder,
    passphrase_source,
)

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for it
    from controller.app.offline import UpdatesFolder

app = typer.Typer(help="Keys that sign updates: replace, sign again, list.", no_args_is_help=True)
_RoleArgument = Annotated[str, typer.Argument(help="root, targets, snapshot or timestamp")]


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
    """Create the repository: offline keys of root and targets under passphrases, online keys of snapshot and timestamp.

    The keys in --keys decide what every device installs: move them off this machine afterwards.
    """
    folder = open_folder(repository, config)
    root, targets = (root_keys, root_threshold), (targets_keys, targets_threshold)
    folder.create(keys, root, targets, passphrase_source(targets_passphrase_file, root_passphrase_file))
    say(f"made   {folder.base}  (repository of updates)")
    say(f"made   {keys.absolute()}  (offline keys: move them off this machine, each to its owner)")
    say("Install the first root on every device, as updates.root of its agent.toml:")
    say(f"  {folder.metadata / '1.root.json'}")


@app.command("rotate")
def rotate(
    role: _RoleArgument,
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    count: Annotated[int | None, typer.Option("--count", min=1, max=16, help="of the new keys  [as before]")] = None,
    threshold: Annotated[int | None, typer.Option(min=1, max=16, help="that have to sign  [as before]")] = None,
    root_passphrase_file: RootPassphraseOption = None,
    targets_passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Replace all keys of a role. The old root keys sign the change, so that devices accept it; then destroy them."""
    folder = open_folder(repository, config)
    plan = None
    if count is not None or threshold is not None:
        present = folder.root().roles.get(role)
        if present is None:
            raise CliError(f"no role {role}: there are root, targets, snapshot and timestamp", ExitCode.USAGE)
        plan = (count or len(present.keyids), threshold or present.threshold)
    keyids = folder.rotate(keys, role, plan, passphrase_source(targets_passphrase_file, root_passphrase_file))
    say(f"{role}: {len(keyids)} new keys: {', '.join(keyid[:16] for keyid in keyids)}")
    say_next_step(folder)


@app.command("renew")
def renew(
    role: Annotated[str, typer.Argument(help="root or targets")],
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    root_passphrase_file: RootPassphraseOption = None,
    targets_passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Sign an offline role again before it expires, with the same keys and content."""
    folder = open_folder(repository, config)
    ends = folder.renew(keys, role, passphrase_source(targets_passphrase_file, root_passphrase_file))
    say(f"{role} is valid until {ends:%Y-%m-%d}")
    say_next_step(folder)


@app.command("list")
def list_keys(
    repository: RepositoryOption = None, config: UpdatesConfigOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """List the keys of each role, and how many of them have to sign."""
    root = open_folder(repository, config).root()
    roles = [
        {"role": name, "threshold": role.threshold, "keys": list(role.keyids)} for name, role in root.roles.items()
    ]
    if output is OutputFormat.JSON:
        print_json(roles)
        return
    rows = [
        (name, f"{role.threshold} of {len(role.keyids)}", keyid[:16], root.keys[keyid].keytype)
        for name, role in root.roles.items()
        for keyid in role.keyids
    ]
    show(output, roles, ("role", "signatures", "key", "type"), rows)


def say_next_step(folder: "UpdatesFolder") -> None:
    """Prints that the controller has to sign, where this machine has no online keys."""
    if not folder.has_online_keys:
        say(f"Copy {folder.served} to the controller: it signs snapshot and timestamp; then devices see the change.")
