"""`cordon command sign`: the second signature, given on the operator's own machine with a key that stays there."""

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.cli.client import Client, segment
from controller.cli.commands import app as commands
from controller.cli.connect import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.operator_keys import PassphraseFile, open_key, passphrase
from controller.cli.output import Format, Output, print_json, safe, say

app: Final = commands  # the whole group, with this one


@commands.command("sign")
@connected
def sign_command(
    client: Client,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="its id", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="your key, made by `cordon keys new`", show_default=False)],
    passphrase_file: PassphraseFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="sign without being asked")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what a command says, sign exactly that, and have it sent."""
    from schemas.signing import public_key_text, to_be_signed

    found = client.get(f"/commands/{segment(command)}/payload")
    payload = base64.b64decode(found["payload"])
    _show(payload)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Sign this?", default=False)):
        raise CliError("nothing was signed: agree at the terminal, or beforehand with --yes", ExitCode.FAILED)
    private = open_key(key, passphrase(passphrase_file, "Passphrase of your key"))
    signature = base64.b64encode(private.sign(to_be_signed(found["payload_type"], payload))).decode()
    body = {"key": public_key_text(private.public_key()), "signature": signature}
    signed = client.call("POST", f"/commands/{segment(command)}/signatures", body)
    if output is Format.JSON:
        print_json(signed)
    else:
        say(f"{command} is signed and on its way to {safe(signed['device_id'])}")


def _show(payload: bytes) -> None:
    """From the bytes themselves: what the API says of them beside may be something else."""
    order: dict[str, Any] = json.loads(payload)
    params = " ".join(f"{name}={value}" for name, value in order["params"].items())
    typer.echo(f"device   {safe(order['device_id'])}", err=True)
    typer.echo(f"order    {safe(order['action'])} {safe(params)}{' (dry run)' if order['dry_run'] else ''}", err=True)
    typer.echo(f"until    {safe(order['expires_at'])}", err=True)
