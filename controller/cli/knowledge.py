"""`cordon knowledge`: how long distributions and OpenSSL branches get fixes, with source and age."""

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.keys.operator_keys import OperatorPassphraseFileOption, open_key, passphrase
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show

_COLUMNS: Final = ("about", "fixes until", "verified", "age", "good until", "source", "rules")
_MAX_FILE: Final = 256 * 1024  # bytes
_MAX_SIGNATURE: Final = 1024  # bytes of a file with a signature
_SUFFIX: Final = ".sig"
app = typer.Typer(help="The knowledge of supports that rules rest on.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="a knowledge file", show_default=False)]


@app.command("show")
@connected
def show_knowledge(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List how long releases get fixes, with source and age of each entry, and the rules that rest on it."""
    _print(client.get("/knowledge"), output)


@app.command("import")
@connected
def import_knowledge(
    client: ApiClient,
    file: FileArgument,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="its signature; without it FILE.sig, if there is one")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="also a file that is not newer, or by which too much would be contained")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Replace the knowledge by a newer file. Where the controller has `knowledge_keys`, one of them has to sign it."""
    body: dict[str, Any] = {"file": _read(file, _MAX_FILE).decode(), "force": force}
    beside = file.with_name(file.name + _SUFFIX)
    if signature is not None or beside.exists():
        body["signature"] = _signature(signature or beside)
    replaced = client.call("PUT", "/knowledge", body)
    if output is OutputFormat.JSON:
        print_json(replaced)
    else:
        by = f", signed by {replaced['signed_by']}" if replaced["signed_by"] else ", without a signature"
        say(f"in force: version {replaced['version']} of {replaced['issued']}, {len(replaced['items'])} entries{by}")


@app.command("sign")
def sign(
    file: FileArgument,
    key: Annotated[Path, typer.Option("--key", help="your key, made by `cordon keys new`", show_default=False)],
    passphrase_file: OperatorPassphraseFileOption = None,
) -> None:
    """Sign a knowledge file: writes FILE.sig. Needs no controller."""
    from controller.cli.config_files import write_new
    from controller.domain.policy.knowledge import PAYLOAD_TYPE
    from schemas.signing import key_id, public_key_text, to_be_signed

    raw = _read(file, _MAX_FILE)
    beside = file.with_name(file.name + _SUFFIX)
    if beside.exists():
        raise CliError(f"{beside} exists: move it away first", ExitCode.USAGE)
    private = open_key(key, passphrase(passphrase_file, "Passphrase of your key"))
    signed = base64.b64encode(private.sign(to_be_signed(PAYLOAD_TYPE, raw))).decode()
    write_new(beside, json.dumps({"key": key_id(private.public_key()), "signature": signed}) + "\n")
    note(f"{beside}: the controller accepts it with this key under [policy] knowledge_keys:")
    say(public_key_text(private.public_key()))


def _print(found: dict[str, Any], output: OutputFormat) -> None:
    show(output, found, _COLUMNS, map(_row, found["items"]))
    if output is OutputFormat.JSON:
        return
    origin = found["origin"]
    if origin == "imported":
        signed = f"signed by {found['signed_by']}" if found["signed_by"] else "not signed"
        origin = f"imported by {found['imported_by']}, {signed}"
    note(f"version {found['version']} of {found['issued']}, {origin}")
    old = sum(item["too_old"] for item in found["items"])
    if old:
        note(f"{old} entries are too old: rules that rest on them are unknown until newer knowledge is imported")


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    about = f"{item['name']} {item['version']}".strip()
    until = f"{item['good_until']} (too old)" if item["too_old"] else item["good_until"]
    age = f"{item['age_days']}d"
    return (
        about,
        item["ends"] or "rolling",
        item["verified"],
        age,
        until,
        item["source"],
        ", ".join(item["rules"]) or "-",
    )


def _signature(path: Path) -> dict[str, str]:
    try:
        found = json.loads(_read(path, _MAX_SIGNATURE))
    except (ValueError, RecursionError) as e:
        raise CliError(f"{path}: not a signature made by `cordon knowledge sign`", ExitCode.USAGE) from e
    if not isinstance(found, dict) or set(found) != {"key", "signature"}:
        raise CliError(f"{path}: not a signature made by `cordon knowledge sign`", ExitCode.USAGE)
    return {name: str(value) for name, value in found.items()}


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        raw.decode()
    except OSError as e:
        raise CliError(f"{path}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    except UnicodeDecodeError as e:
        raise CliError(f"{path}: not UTF-8 text", ExitCode.USAGE) from e
    if len(raw) > limit:
        raise CliError(f"{path}: larger than {limit} bytes", ExitCode.USAGE)
    return raw
