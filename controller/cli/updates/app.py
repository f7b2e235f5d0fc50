"""`cordon update`: the repository of signed updates.

Commands that need offline keys work on the folder, so that they run on a machine without a network. The others ask the
controller, or read the folder with `--repository`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, print_json, safe, say, show
from controller.cli.updates import keys as key_commands
from controller.cli.updates import options
from controller.cli.updates.options import (
    OfflineKeysOption,
    RepositoryOption,
    TargetsPassphraseOption,
    UpdatesConfigOption,
    open_folder,
    passphrase_source,
)

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for them
    from schemas.updates import HealthCheck, UpdateTarget

app = typer.Typer(help="Signed updates: publish, list, withdraw; keys.", no_args_is_help=True)
app.add_typer(key_commands.app, name="keys")
app.command("init")(key_commands.init)
_COLUMNS = ("name", "version", "kind", "classes", "hardware", "bytes", "sha256")
_ReadRepositoryOption = Annotated[
    Path | None, typer.Option("--repository", help="read this folder instead of asking the controller")
]


@app.command("publish")
def publish(
    file: options.UpdateFileArgument,
    kind: options.UpdateKindOption,
    version: options.UpdateVersionOption,
    classes: options.DeviceClassesOption,
    name: options.UpdateNameOption = None,
    installer: options.InstallerOption = None,
    hardware: options.HardwareOption = None,
    requires: options.RequirementsOption = None,
    health: options.HealthCheckOption = None,
    health_timeout: options.HealthTimeoutOption = 60,
    rollback: options.RollbackOption = "previous",
    restart: options.RestartOption = "none",
    argument: options.ScriptArgumentsOption = None,
    timeout: options.InstallTimeoutOption = 1800,
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    passphrase_file: TargetsPassphraseOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Sign a file with the targets key and publish it."""
    folder = open_folder(repository, config)
    fields = {
        "name": name or _name_of(file, version),
        "version": version,
        "kind": kind,
        "installer": installer or _installer_of(file, kind),
        "classes": classes,
        "hardware": hardware or [],
        "arguments": argument or [],
        "rollback": rollback,
        "seconds": timeout,
        **_restart_of(restart),
    }
    target = _target(file, fields, requires or [], health or [], health_timeout)
    published = folder.publish(file, target, keys, passphrase_source(passphrase_file))
    if output is OutputFormat.JSON:
        print_json(
            {
                "path": published.path,
                "sha256": published.sha256,
                "length": published.length,
                "target": _plain(target),
            }
        )
        return
    say(f"published {published.path}  ({published.length} bytes, sha256 {published.sha256})")
    key_commands.say_next_step(folder)


@app.command("withdraw")
def withdraw(
    name: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Withdraw a version: no device installs it from now on. Devices that have installed it keep it."""
    folder = open_folder(repository, config)
    path = folder.withdraw(name, version, keys, passphrase_source(passphrase_file))
    say(f"withdrawn {path}")
    key_commands.say_next_step(folder)


@app.command("list")
@connected
def list_updates(
    client: Callable[[], ApiClient],
    repository: _ReadRepositoryOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the versions that devices may install."""
    updates = _published(repository) if repository is not None else client().get("/updates")["items"]
    rows = (
        (
            update["target"]["name"],
            update["target"]["version"],
            update["target"]["kind"],
            ",".join(update["target"]["classes"]),
            ",".join(update["target"]["hardware"]) or "any",
            update["length"],
            update["sha256"][:16],
        )
        for update in updates
    )
    show(output, updates, _COLUMNS, rows, empty="nothing is published")


@app.command("show")
@connected
def show_update(
    client: Callable[[], ApiClient],
    name: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    repository: _ReadRepositoryOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show one version with all signed fields."""
    if repository is None:
        update = client().get(f"/updates/{segment(name)}/{segment(version)}")
    else:
        update = _find(_published(repository), name, version)
    if output is OutputFormat.JSON:
        print_json(update)
        return
    fields = {key: update[key] for key in ("path", "sha256", "length")} | update["target"]
    for key, value in fields.items():
        say(f"{key:<16} {safe(_text(value))}")


def _find(updates: list[Any], name: str, version: str) -> Any:
    for update in updates:
        if (update["target"]["name"], update["target"]["version"]) == (name, version):
            return update
    raise CliError(f"{name} {version} is not published")


@app.command("status")
@connected
def status(
    client: Callable[[], ApiClient],
    repository: _ReadRepositoryOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show until when the signed metadata is valid; exit status 1 when it has expired or cannot be renewed."""
    metadata = _status(repository) if repository is not None else client().get("/updates/status")
    rows = (
        (role["role"], role["version"], role["expires"], f"{role['threshold']} of {role['keys']}")
        for role in metadata["roles"]
    )
    show(output, metadata, ("role", "version", "ends", "signatures"), rows)
    for text in (*metadata["warnings"], *([metadata["trouble"]] if metadata["trouble"] else [])):
        if output is not OutputFormat.JSON:
            say(safe(text))
    if metadata["trouble"]:
        raise typer.Exit(ExitCode.FAILED)


def _target(
    file: Path, fields: dict[str, Any], requires: list[str], health: list[str], health_timeout: int
) -> "UpdateTarget":
    from pydantic import ValidationError

    from controller.app.offline import unpacked_bytes
    from schemas.updates import UpdateTarget, parse_requirement

    try:
        return UpdateTarget.model_validate(
            {
                **fields,
                "requires": [parse_requirement(text) for text in requires],
                "health": _health_check(health, health_timeout),
                "installed_bytes": unpacked_bytes(file),
            }
        )
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "update"
        raise CliError(f"{field}: {first['msg'].removeprefix('Value error, ')}", ExitCode.USAGE) from e
    except ValueError as e:
        raise CliError(str(e), ExitCode.USAGE) from e


def _health_check(texts: list[str], seconds: int) -> "HealthCheck":
    import shlex

    from schemas.updates import HealthCheck

    fields: dict[str, Any] = {"seconds": seconds}
    for text in texts:
        name, _, value = text.partition(":")
        if name == "no-broker" and not value:
            fields["broker"] = False
        elif name == "command" and value:
            fields["command"] = tuple(shlex.split(value))
        elif name in ("service", "http") and value:
            fields[name] = value
        elif name == "tcp" and value.isdigit():
            fields["tcp"] = int(value)
        else:
            raise ValueError(
                f"--health is command:PROGRAM, service:UNIT, tcp:PORT, http:URL or no-broker, not {text!r}"
            )
    return HealthCheck.model_validate(fields)


def _name_of(file: Path, version: str) -> str:
    name = file.name
    for separator in ("-", "_", "."):
        name = name.split(f"{separator}{version}", 1)[0]
    for suffix in (".tar.gz", ".tar.xz", ".tar.bz2", ".tgz", ".tar", ".deb", ".rpm", ".apk", ".ipk", ".sh", ".pyz"):
        name = name.removesuffix(suffix)
    return name.lower()


def _installer_of(file: Path, kind: str) -> str:
    by_suffix = {".deb": "apt", ".rpm": "dnf", ".apk": "apk", ".ipk": "opkg"}
    by_kind = {"script": "script", "file": "fileset", "image": "hook"}
    if kind == "package" and file.suffix not in by_suffix:
        raise CliError(f"{file.name}: not .deb, .rpm, .apk or .ipk; give --installer", ExitCode.USAGE)
    return by_suffix[file.suffix] if kind == "package" else by_kind.get(kind, kind)


def _restart_of(text: str) -> dict[str, str]:
    restart, _, unit = text.partition(":")
    return {"restart": restart, "restart_service": unit}


def _plain(target: "UpdateTarget") -> Any:
    return target.model_dump(mode="json")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items() if item not in ("", None, [])) or "-"
    return "-" if value in ("", None) else str(value)


def _published(base: Path) -> list[Any]:
    from controller.app.offline import UpdatesFolder

    return [
        {"path": update.path, "sha256": update.sha256, "length": update.length, "target": _plain(update.target)}
        for update in UpdatesFolder(base).published()
    ]


def _status(base: Path) -> dict[str, Any]:
    from controller.app.offline import UpdatesFolder

    folder = UpdatesFolder(base)
    roles = folder.roles()
    expired = [role.role for role in roles if role.expires <= time.time()]
    return {
        "roles": [
            {
                "role": role.role,
                "version": role.version,
                "expires": datetime.fromtimestamp(int(role.expires), UTC).isoformat().replace("+00:00", "Z"),
                "keys": role.keys,
                "threshold": role.threshold,
            }
            for role in roles
        ],
        "trouble": f"ended: {', '.join(expired)}" if expired else "",
        "warnings": list(folder.warnings()),
    }
