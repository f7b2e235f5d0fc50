"""`cordon update`: the repository of signed updates.

What needs offline keys works on the folder itself, so that it can be done on a machine that is never online; what only
looks asks the running controller, or the folder with `--repository`.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.api.client import ApiClient, segment
from controller.cli import update_keys
from controller.cli import update_options as options
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, print_json, safe, say, show
from controller.cli.update_options import (
    OfflineKeysOption,
    RepositoryOption,
    TargetsPassphraseOption,
    UpdatesConfigOption,
    asker,
    folder_of,
)

if TYPE_CHECKING:  # loaded late: every `cordon --help` would wait for them
    from collections.abc import Callable

    from schemas.updates import HealthCheck, UpdateTarget

app = typer.Typer(help="Signed updates: publish, look, withdraw; keys.", no_args_is_help=True)
app.add_typer(update_keys.app, name="keys")
app.command("init")(update_keys.init)
_COLUMNS = ("name", "version", "kind", "classes", "hardware", "bytes", "sha256")
_Looked = Annotated[
    Path | None, typer.Option("--repository", help="look into this folder instead of asking the controller")
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
    folder = folder_of(repository, config)
    parts = {
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
    target = _target(file, parts, requires or [], health or [], health_timeout)
    found = folder.publish(file, target, keys, asker(passphrase_file))
    if output is OutputFormat.JSON:
        print_json({"path": found.path, "sha256": found.sha256, "length": found.length, "target": _plain(target)})
        return
    say(f"published {found.path}  ({found.length} bytes, sha256 {found.sha256})")
    update_keys.say_what_is_left(folder)


@app.command("withdraw")
def withdraw(
    name: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    repository: RepositoryOption = None,
    config: UpdatesConfigOption = None,
    keys: OfflineKeysOption = Path(),
    passphrase_file: TargetsPassphraseOption = None,
) -> None:
    """Take a version out: no device installs it any more. Where it is installed it stays."""
    folder = folder_of(repository, config)
    path = folder.withdraw(name, version, keys, asker(passphrase_file))
    say(f"withdrawn {path}")
    update_keys.say_what_is_left(folder)


@app.command("list")
@connected
def list_updates(
    client: "Callable[[], ApiClient]", repository: _Looked = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """List what devices may install."""
    found = _published(repository) if repository is not None else client().get("/updates")["items"]
    rows = (
        (
            one["target"]["name"],
            one["target"]["version"],
            one["target"]["kind"],
            ",".join(one["target"]["classes"]),
            ",".join(one["target"]["hardware"]) or "any",
            one["length"],
            one["sha256"][:16],
        )
        for one in found
    )
    show(output, found, _COLUMNS, rows, empty="nothing is published")


@app.command("show")
@connected
def show_update(
    client: "Callable[[], ApiClient]",
    name: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    repository: _Looked = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show one version with everything that is signed about it."""
    if repository is None:
        found = client().get(f"/updates/{segment(name)}/{segment(version)}")
    else:
        fitting = (one for one in _published(repository) if one["target"]["name"] == name)
        one = next((one for one in fitting if one["target"]["version"] == version), None)
        if one is None:
            raise CliError(f"{name} {version} is not published")
        found = one
    if output is OutputFormat.JSON:
        print_json(found)
        return
    lines = {key: found[key] for key in ("path", "sha256", "length")} | found["target"]
    for key, value in lines.items():
        say(f"{key:<16} {safe(_shown(value))}")


@app.command("status")
@connected
def status(
    client: "Callable[[], ApiClient]", repository: _Looked = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Say how long the signed metadata holds; exit status 1 when it has ended or cannot be renewed."""
    found = _status(repository) if repository is not None else client().get("/updates/status")
    rows = ((r["role"], r["version"], r["expires"], f"{r['threshold']} of {r['keys']}") for r in found["roles"])
    show(output, found, ("role", "version", "ends", "signatures"), rows)
    for text in (*found["warnings"], *([found["trouble"]] if found["trouble"] else [])):
        if output is not OutputFormat.JSON:
            say(safe(text))
    if found["trouble"]:
        raise typer.Exit(ExitCode.FAILED)


def _target(
    file: Path, parts: dict[str, Any], requires: list[str], health: list[str], health_timeout: int
) -> "UpdateTarget":
    from pydantic import ValidationError

    from controller.app.offline import unpacked_bytes
    from schemas.updates import UpdateTarget, parse_requirement

    try:
        return UpdateTarget.model_validate(
            {
                **parts,
                "requires": [parse_requirement(text) for text in requires],
                "health": _health(health, health_timeout),
                "installed_bytes": unpacked_bytes(file),
            }
        )
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise CliError(f"{where}: {first['msg'].removeprefix('Value error, ')}", ExitCode.USAGE) from e
    except ValueError as e:
        raise CliError(str(e), ExitCode.USAGE) from e


def _health(texts: list[str], seconds: int) -> "HealthCheck":
    import shlex

    from schemas.updates import HealthCheck

    parts: dict[str, Any] = {"seconds": seconds}
    for text in texts:
        what, _, value = text.partition(":")
        if what == "no-broker" and not value:
            parts["broker"] = False
        elif what == "command" and value:
            parts["command"] = tuple(shlex.split(value))
        elif what in ("service", "http") and value:
            parts[what] = value
        elif what == "tcp" and value.isdigit():
            parts["tcp"] = int(value)
        else:
            raise ValueError(
                f"--health is command:PROGRAM, service:UNIT, tcp:PORT, http:URL or no-broker, not {text!r}"
            )
    return HealthCheck.model_validate(parts)


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
        raise CliError(f"{file.name}: not .deb, .rpm, .apk or .ipk; say --installer", ExitCode.USAGE)
    return by_suffix[file.suffix] if kind == "package" else by_kind.get(kind, kind)


def _restart_of(text: str) -> dict[str, str]:
    what, _, unit = text.partition(":")
    return {"restart": what, "restart_service": unit}


def _plain(target: "UpdateTarget") -> Any:
    return target.model_dump(mode="json")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(one)}" for key, one in value.items() if one not in ("", None, [])) or "-"
    return "-" if value in ("", None) else str(value)


def _published(folder: Path) -> list[Any]:
    from controller.app.offline import UpdatesFolder

    return [
        {"path": one.path, "sha256": one.sha256, "length": one.length, "target": _plain(one.target)}
        for one in UpdatesFolder(folder).published()
    ]


def _status(base: Path) -> dict[str, Any]:
    from controller.app.offline import UpdatesFolder

    folder = UpdatesFolder(base)
    roles = folder.roles()
    ended = [one.role for one in roles if one.expires <= time.time()]
    return {
        "roles": [
            {
                "role": one.role,
                "version": one.version,
                "expires": datetime.fromtimestamp(int(one.expires), UTC).isoformat().replace("+00:00", "Z"),
                "keys": one.keys,
                "threshold": one.threshold,
            }
            for one in roles
        ],
        "trouble": f"ended: {', '.join(ended)}" if ended else "",
        "warnings": list(folder.warnings()),
    }
