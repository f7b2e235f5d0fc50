"""`cordon keys`: keys that sign commands, on the devices that obey them, and keys of people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, ApiResponseError
from controller.cli.connection_options import DEFAULT_CONFIG, connected
from controller.cli.errors import CliError, ExitCode, code_of
from controller.cli.operator_keys import OperatorPassphraseFileOption, new_key, passphrase
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show

_COLUMNS: Final = ("key", "what", "public")
app = typer.Typer(help="Keys that sign commands, and keys of people.", no_args_is_help=True)
KeysConfigOption = Annotated[
    Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml, which names the keys")
]
WithinOption = Annotated[str, typer.Option(help="how long a device that is away may take to hear of it")]
HoldOption = Annotated[bool, typer.Option("--hold", help="until an operator has signed each: `cordon command sign`")]


@app.command("new")
def new(
    path: Annotated[Path, typer.Argument(help="file to make; it must not exist", show_default=False)],
    passphrase_file: OperatorPassphraseFileOption = None,
) -> None:
    """Make a key for a person: for `operator_keys` of the devices, and `cordon command sign`."""
    from schemas.signing import public_key_text

    key = new_key(path, passphrase(passphrase_file, "Passphrase for the new key", twice=True))
    note(f"{path} is yours alone; devices get its public half, under [commands] operator_keys:")
    say(public_key_text(key.public_key()))


@app.command("list")
def list_keys(config: KeysConfigOption = DEFAULT_CONFIG, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the keys that this controller signs with, as its configuration names them."""
    from controller.app.offline import load_signing_key
    from controller.service.settings.settings import load_settings
    from schemas.signing import key_id, public_key_text

    commands = load_settings(config).commands
    found = []
    for what, path in (("signs", commands.signing_key), ("signs too, until it is retired", commands.retiring_key)):
        if path is not None:
            public = load_signing_key(path).public_key()
            found.append({"key": key_id(public), "what": what, "public": public_key_text(public)})
    show(output, found, _COLUMNS, ((one["key"], one["what"], one["public"]) for one in found))


@app.command("rotate")
@connected
def rotate(
    client: ApiClient,
    key: Annotated[str, typer.Option("--key", help="public half of the new key, ed25519:...", show_default=False)],
    retire: Annotated[str, typer.Option("--retire", help="name of the old key, 16 hex digits", show_default=False)],
    overlap: Annotated[int, typer.Option(help="days for which devices obey both", min=1, max=365)] = 30,
    within: WithinOption = "1d",
    hold: HoldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Have every device trust a new key, by a command that the old one signs; the old one ends after the overlap."""
    params = {"key": key, "retire": retire, "overlap": overlap * 86_400}
    _everywhere(client, {"action": "keys.introduce", "params": params, "within": within, "hold": hold}, output)


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    keyid: Annotated[str, typer.Argument(help="name of the key, 16 hex digits", show_default=False)],
    within: WithinOption = "1d",
    hold: HoldOption = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Have no device trust a key ever again; devices with operator_keys want one of those to sign it: --hold."""
    _everywhere(client, {"action": "keys.revoke", "params": {"keyid": keyid}, "within": within, "hold": hold}, output)


def _everywhere(client: ApiClient, order: Mapping[str, Any], output: OutputFormat) -> None:
    told: list[dict[str, Any]] = []
    troubles: list[str] = []
    for device in client.pages("/devices"):
        try:
            told.append(client.call("POST", "/commands", {**order, "device_id": device["device_id"]}))
        except ApiResponseError as e:
            if code_of(e) is not ExitCode.FAILED:
                raise
            troubles.append(f"{device['device_id']}: {e}")
    if output is OutputFormat.JSON:
        print_json([{"device_id": one["device_id"], "command_id": one["command_id"]} for one in told])
    else:
        for one in told:
            say(f"{one['device_id']}  {one['command_id']}")
    note(f"{len(told)} devices are told; see `cordon command list` how it ended")
    if troubles:
        raise CliError("not told: " + "; ".join(troubles[:10]))
