"""`cordon keys`: command-signing keys, on controller and devices, and operators' keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, ApiResponseError
from controller.cli.connection_options import DEFAULT_CONFIG, connected
from controller.cli.errors import CliError, ExitCode, code_of
from controller.cli.keys.operator_keys import OperatorPassphraseFileOption, new_key, passphrase
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show

_COLUMNS: Final = ("key", "what", "public")
app = typer.Typer(help="Keys that sign commands, and operators' keys.", no_args_is_help=True)
KeysConfigOption = Annotated[Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with the keys")]
WithinOption = Annotated[str, typer.Option(help="how long the command stays valid for a device that is away")]
HoldOption = Annotated[
    bool, typer.Option("--hold", help="send each only after an operator has signed it: `cordon command sign`")
]


@app.command("new")
def new(
    path: Annotated[Path, typer.Argument(help="file to create; it must not exist", show_default=False)],
    passphrase_file: OperatorPassphraseFileOption = None,
) -> None:
    """Create an operator's key: for `operator_keys` of the devices, and `cordon command sign`."""
    from schemas.signing import public_key_text

    key = new_key(path, passphrase(passphrase_file, "Passphrase for the new key", twice=True))
    note(f"keep {path} secret; devices get its public half, under [commands] operator_keys:")
    say(public_key_text(key.public_key()))


@app.command("list")
def list_keys(config: KeysConfigOption = DEFAULT_CONFIG, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the keys with which this controller signs, from its configuration."""
    from controller.app.offline import load_signing_key
    from controller.service.settings.settings import load_settings
    from schemas.signing import key_id, public_key_text

    commands = load_settings(config).commands
    keys = []
    for use, path in (("signs", commands.signing_key), ("signs too, until it is retired", commands.retiring_key)):
        if path is not None:
            public = load_signing_key(path).public_key()
            keys.append({"key": key_id(public), "what": use, "public": public_key_text(public)})
    show(output, keys, _COLUMNS, ((key["key"], key["what"], key["public"]) for key in keys))


@app.command("rotate")
@connected
def rotate(
    client: ApiClient,
    key: Annotated[str, typer.Option("--key", help="public half of the new key, ed25519:...", show_default=False)],
    retire: Annotated[str, typer.Option("--retire", help="id of the old key, 16 hex digits", show_default=False)],
    overlap: Annotated[int, typer.Option(help="days for which devices accept both", min=1, max=365)] = 30,
    within: WithinOption = "1d",
    hold: HoldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make every device trust a new key, by a command that the old key signs; the old key expires after the overlap."""
    params = {"key": key, "retire": retire, "overlap": overlap * 86_400}
    _send_to_all(client, {"action": "keys.introduce", "params": params, "within": within, "hold": hold}, output)


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    keyid: Annotated[str, typer.Argument(help="id of the key, 16 hex digits", show_default=False)],
    within: WithinOption = "1d",
    hold: HoldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make every device distrust a key for good. Devices with operator_keys require one of those to sign it: --hold."""
    _send_to_all(client, {"action": "keys.revoke", "params": {"keyid": keyid}, "within": within, "hold": hold}, output)


def _send_to_all(client: ApiClient, command: Mapping[str, Any], output: OutputFormat) -> None:
    sent: list[dict[str, Any]] = []
    failures: list[str] = []
    for device in client.pages("/devices"):
        try:
            sent.append(client.call("POST", "/commands", {**command, "device_id": device["device_id"]}))
        except ApiResponseError as e:
            if code_of(e) is not ExitCode.FAILED:
                raise
            failures.append(f"{device['device_id']}: {e}")
    if output is OutputFormat.JSON:
        print_json([{"device_id": one["device_id"], "command_id": one["command_id"]} for one in sent])
    else:
        for one in sent:
            say(f"{one['device_id']}  {one['command_id']}")
    note(f"sent to {len(sent)} devices; `cordon command list` shows the results")
    if failures:
        raise CliError("not sent: " + "; ".join(failures[:10]))
