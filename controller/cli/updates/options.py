"""Options that the commands about updates share, and what they open: the repository, passphrases."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.errors import CliError, ExitCode
from schemas.secret_sources import SECRET_HELP

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for it
    from controller.app.offline import UpdatesFolder

UpdatesConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with updates.folder")
]
RepositoryOption = Annotated[
    Path | None, typer.Option("--repository", help="folder of the repository  [updates.folder of cordon.toml]")
]
OfflineKeysOption = Annotated[
    Path, typer.Option("--keys", help="folder with the offline keys: keep it offline  [here]")
]
RootPassphraseOption = Annotated[
    str | None,
    typer.Option("--root-passphrase-file", help=f"passphrase of the root keys, asked for without it: {SECRET_HELP}"),
]
TargetsPassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--targets-passphrase-file", help=f"passphrase of the targets keys, asked for without it: {SECRET_HELP}"
    ),
]

UpdateFileArgument = Annotated[Path, typer.Argument(help="a package, a script, an archive, an image")]
UpdateKindOption = Annotated[str, typer.Option("--kind", help="package, script, file or image")]
UpdateVersionOption = Annotated[str, typer.Option("--version", help="version of the file")]
DeviceClassesOption = Annotated[list[str], typer.Option("--for", help="device class; repeat it; '*' is every class")]
UpdateNameOption = Annotated[
    str | None, typer.Option("--name", help="name of the update  [the file's name up to the version]")
]
InstallerOption = Annotated[
    str | None,
    typer.Option("--installer", help="apt, dnf, apk, opkg; fileset or agent; script; hook  [by kind and file]"),
]
HardwareOption = Annotated[list[str] | None, typer.Option("--hardware", help="hardware id; repeat it  [any]")]
RequirementsOption = Annotated[
    list[str] | None, typer.Option("--requires", help="such as free_mib>=200 or installed:base>=2; repeat it")
]
HealthCheckOption = Annotated[
    list[str] | None,
    typer.Option("--health", help="command:PROGRAM ARGS, service:UNIT, tcp:PORT, http:URL or no-broker; repeat it"),
]
HealthTimeoutOption = Annotated[
    int, typer.Option("--health-timeout", min=1, max=3600, help="seconds to become healthy")
]
RollbackOption = Annotated[str, typer.Option("--rollback", help="previous: revert when unhealthy; never: keep it")]
RestartOption = Annotated[str, typer.Option("--restart", help="none, reboot, or service:UNIT")]
ScriptArgumentsOption = Annotated[list[str] | None, typer.Option("--argument", help="of a script; repeat it")]
InstallTimeoutOption = Annotated[int, typer.Option("--timeout", min=1, max=86_400, help="seconds to install it")]


def open_folder(repository: Path | None, config: Path | None) -> "UpdatesFolder":
    """The repository in the given folder, or in `updates.folder` of the configuration.

    Raises:
        CliError: neither is given.
    """
    from controller.app.offline import UpdatesFolder

    if repository is not None:
        return UpdatesFolder(repository.absolute())
    path = config or (DEFAULT_CONFIG if os.access(DEFAULT_CONFIG, os.R_OK) else None)
    if path is None:
        raise CliError("give --repository DIR, or --config cordon.toml", ExitCode.USAGE)
    from controller.service.settings.settings import load_settings  # pydantic takes a while to load

    folder = load_settings(path).updates.folder
    if folder is None:
        raise CliError(f"{path} has no updates.folder: set it, or give --repository DIR", ExitCode.USAGE)
    return UpdatesFolder(folder)


def passphrase_source(targets: str | None = None, root: str | None = None) -> Callable[[Path, bool], str]:
    """Returns a function that gives the passphrase of a key file: from the role's option, or asked at the terminal."""

    def ask(path: Path, is_new: bool) -> str:
        source = root if path.name.startswith("root-") else targets
        if source is not None:
            return _first_line(source)
        if not sys.stdin.isatty():
            role = path.name.partition("-")[0]
            raise CliError(f"{path.name} needs its passphrase: give --{role}-passphrase-file", ExitCode.USAGE)
        return str(typer.prompt(f"Passphrase of {path.name}", hide_input=True, confirmation_prompt=is_new))

    return ask


def _first_line(source: str) -> str:
    from controller.app.offline import read_secret

    return read_secret(source, "passphrase").splitlines()[0]
