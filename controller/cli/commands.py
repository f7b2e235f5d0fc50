"""`cordon command`: sends signed commands to devices and shows their results."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.devices.app import DeviceArgument
from controller.cli.errors import CliError, ExitCode
from controller.cli.keys.operator_keys import OperatorPassphraseFileOption, open_key, passphrase
from controller.cli.lost_requests import get_until_answered
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

WAIT: Final = 50.0  # seconds in one request
PAUSE: Final = 1.0  # seconds between two requests where the API cannot wait
_COLUMNS: Final = ("command", "device", "action", "state", "reason", "by", "updated")
app = typer.Typer(help="Signed commands to devices.", no_args_is_help=True)


def parse_params(texts: list[str]) -> dict[str, str | int | bool]:
    """Parses `key=value` parameters; whole numbers and true/false are converted unless they are quoted.

    Raises:
        CliError: not `key=value`, or a key is given twice.
    """
    params: dict[str, str | int | bool] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise CliError(f"{text}: a parameter is key=value", ExitCode.USAGE)
        if key in params:
            raise CliError(f"{key} is given twice", ExitCode.USAGE)
        params[key] = _value(value)
    return params


def _value(text: str) -> str | int | bool:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    digits = text.removeprefix("-")
    is_number = digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0"))
    return int(text) if is_number and len(digits) <= 15 else text


@app.command("send")
@connected
def send(
    client: ApiClient,
    device: DeviceArgument,
    action: Annotated[str, typer.Argument(help="service.disable, package.upgrade, rescan, ...", show_default=False)],
    params: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="the device only reports what it would do")] = False,
    within: Annotated[str, typer.Option(help="time until the command has to start: 90s, 10m, 2h")] = "10m",
    hold: Annotated[
        bool, typer.Option("--hold", help="send it only after an operator has signed it: `cordon command sign`")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait for the result; exit status 1 unless it succeeded")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Sign a command and send it; a device that is offline gets it when it connects."""
    body = {"device_id": device, "action": action, "params": parse_params(params or []), "dry_run": dry_run}
    command = client.call("POST", "/commands", {**body, "within": within, "hold": hold}, wait=WAIT if wait else None)
    while wait and command["waited"] != "settled":  # a command expires at the latest
        if command["waited"] != "timed_out":
            time.sleep(PAUSE)
        command = get_until_answered(client, f"/commands/{segment(command['command_id'])}", wait=WAIT)
    _print(command, output)
    if wait and command["state"] != "succeeded":
        raise CliError(f"the command {command['state']}: {safe(command['reason']) or 'no reason given'}")


@app.command("list")
@connected
def list_commands(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="only of this device")] = None,
    state: Annotated[
        str | None, typer.Option(help="scheduled, executing, succeeded, failed, expired, rejected")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List commands, newest first."""
    commands = client.get("/commands", device_id=device, state=state, limit=limit)["items"]
    rows = (
        (
            command["command_id"],
            command["device_id"],
            _action(command),
            command["state"],
            command["reason"] or "-",
            command["rule"] or command["by"],
            ago(command["updated_at"]),
        )
        for command in commands
    )
    show(output, commands, _COLUMNS, rows, empty="no command matches")


@app.command("show")
@connected
def show_command(
    client: ApiClient,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="its id", show_default=False)],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show one command and its result."""
    _print(client.get(f"/commands/{segment(command)}"), output)


def _action(command: dict[str, Any]) -> str:
    params = " ".join(f"{key}={value}" for key, value in command["params"].items())
    return f"{command['action']} {params}".strip() + (" (dry run)" if command["dry_run"] else "")


def _print(command: dict[str, Any], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(command)
        return
    say(f"{command['command_id']}  {safe(command['device_id'])}  {safe(_action(command))}")
    say(f"  {command['state']}{': ' + safe(command['reason']) if command['reason'] else ''}")
    for key, value in command["detail"].items():
        say(f"  {safe(key)}: {safe(value)}")


@app.command("withdraw")
@connected
def withdraw(
    client: ApiClient,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="its id", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", "-r", help="why; it is kept in the audit log", show_default=False)],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End a command that the device has not begun: it is not sent any more."""
    ended = client.call("POST", f"/commands/{segment(command)}/withdraw", {"reason": reason})
    _print(ended, output)
    if ended["was_sent"]:
        note(f"it was sent before: {safe(ended['device_id'])} may still carry it out until {ended['expires_at']}")


@app.command("sign")
@connected
def sign_command(
    client: ApiClient,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="its id", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="your key, made by `cordon keys new`", show_default=False)],
    passphrase_file: OperatorPassphraseFileOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="sign without confirmation")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show a command's payload, sign exactly that, and have it sent."""
    from schemas.signing import public_key_text, to_be_signed

    response = client.get(f"/commands/{segment(command)}/payload")
    payload = base64.b64decode(response["payload"])
    _show(payload)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Sign this?", default=False)):
        raise CliError("nothing was signed: confirm at the terminal, or with --yes")
    private = open_key(key, passphrase(passphrase_file, "Passphrase of your key"))
    signature = base64.b64encode(private.sign(to_be_signed(response["payload_type"], payload))).decode()
    body = {"key": public_key_text(private.public_key()), "signature": signature}
    signed = client.call("POST", f"/commands/{segment(command)}/signatures", body)
    if output is OutputFormat.JSON:
        print_json(signed)
    else:
        say(f"{command} is signed and sent to {safe(signed['device_id'])}")


def _show(payload: bytes) -> None:
    """Prints what the signed bytes contain: other fields of the API's response could differ from them."""
    content: dict[str, Any] = json.loads(payload)
    params = " ".join(f"{name}={value}" for name, value in content["params"].items())
    note(f"device   {safe(content['device_id'])}")
    note(f"action   {safe(content['action'])} {safe(params)}{' (dry run)' if content['dry_run'] else ''}")
    note(f"until    {safe(content['expires_at'])}")
