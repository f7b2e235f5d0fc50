"""`cordon certificates` and `cordon revoke`: lists and revokes certificates."""

import re
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.confirmation import confirm_protected
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.guard import EvenProtectedOption, second_person
from controller.cli.output import OutputFormat, OutputOption, ago, print_json, safe, say, show
from controller.cli.quarantine.results import WaitOption, check_proofs, wait_query

_SERIAL: Final = re.compile(r"[1-9a-f][0-9a-f]{0,39}")
_COLUMNS: Final = ("serial", "name", "kind", "issued", "until", "from", "state")
app = typer.Typer(help="The registry of certificates.", no_args_is_help=True)


@app.command("list")
@connected
def list_certificates(
    client: ApiClient,
    name: Annotated[str | None, typer.Option("--name", help="device or server")] = None,
    *,
    good: Annotated[bool, typer.Option("--good", help="omit expired and revoked certificates")] = False,
    limit: Annotated[int, typer.Option(help="maximum number", min=1)] = 200,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the registry, newest first."""
    certificates = list(client.pages("/certificates", limit, name=name, good=good))
    show(output, certificates, _COLUMNS, map(_row, certificates), empty="no certificates")


def _row(certificate: dict[str, Any]) -> tuple[object, ...]:
    state = "revoked" if certificate["revoked_at"] else "good" if certificate["holds"] else "expired"
    issued, end = ago(certificate["issued_at"]), ago(certificate["not_after"])
    columns = (certificate["serial"], certificate["name"], certificate["kind"])
    return (*columns, issued, end, certificate["origin"], state)


@connected
def revoke(
    client: ApiClient,
    device: Annotated[str | None, typer.Argument(metavar="[DEVICE]", show_default=False)] = None,
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="why; it is kept in the audit log")
    ] = "revoked by an operator",
    serial: Annotated[str | None, typer.Option("--serial", help="one certificate instead of all of a device")] = None,
    word: Annotated[str, typer.Option("--word", help="reason in the revocation list")] = "unspecified",
    *,
    even_protected: EvenProtectedOption = False,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Revoke a device's certificates, end its session, and isolate it until it has a new one."""
    if (device is None) == (serial is None):
        raise CliError("name a device, or one certificate with --serial", ExitCode.USAGE)
    path = (
        f"/certificates/devices/{segment(device)}/revoke"
        if device
        else f"/certificates/serials/{read_serial(serial or '')}/revoke"
    )
    body = {"reason": reason, "word": word}

    def post(even_protected: bool) -> Any:
        return client.call("POST", path, {**body, "even_protected": even_protected}, wait=wait_query(wait))

    done = confirm_protected(post, even_protected)
    if done["request"]:
        raise second_person(done["request"])
    certificates, devices = done["items"], done["devices"]
    if output is OutputFormat.JSON:
        print_json({"items": certificates, "proven": {one["device_id"]: one["proven"] for one in devices}})
    else:
        for one in certificates:
            say(f"{safe(one['name'])}: {one['serial']} is revoked")
        if not certificates:
            say("nothing to revoke: it was revoked before, or has expired")
    if not wait:
        return
    check_proofs([{**one, "waited": done["waited"]} for one in devices])
    if output is OutputFormat.TABLE:
        for one in devices:
            name = safe(one["device_id"])
            say(f"{name}: the broker was read back, its session is gone; it stays out until it has a new certificate")


def read_serial(text: str) -> str:
    """Returns a serial number as the API takes it, from what openssl and others write (CliError: it is none)."""
    digits = text.strip().lower().removeprefix("serial=").removeprefix("0x").replace(":", "").lstrip("0")
    if not _SERIAL.fullmatch(digits):
        raise CliError(f"{safe(text)} is no serial number: up to 40 hexadecimal digits, not 0", ExitCode.USAGE)
    return digits
