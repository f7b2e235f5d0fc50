"""Operators' keys: Ed25519 under a passphrase, created and opened on the operator's machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from controller.cli.errors import CliError, ExitCode
from controller.ports.errors import SettingsError
from schemas.secret_sources import SECRET_HELP

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIN_PASSPHRASE: Final = 12  # characters
_MAX_FILE: Final = 16 * 1024  # bytes
OperatorPassphraseFileOption = Annotated[
    str | None, typer.Option("--passphrase-file", help=f"the passphrase, asked for without it: {SECRET_HELP}")
]


def passphrase(source: str | None, question: str, *, twice: bool = False) -> str:
    """Returns the passphrase from where the option says, or asks for it at the terminal.

    Raises:
        CliError: no terminal, or the passphrase cannot be had.
    """
    if source is not None:
        from controller.app.offline import read_secret

        try:
            return read_secret(source, "--passphrase-file").strip()
        except SettingsError as e:
            raise CliError(str(e), ExitCode.USAGE) from e
    if not sys.stdin.isatty():
        raise CliError("the passphrase is missing: give --passphrase-file", ExitCode.USAGE)
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=twice))


def private_text(path: Path, what: str) -> str:
    """Returns the content of a file that only its owner can read.

    Raises:
        CliError: the file cannot be read or is not text, or others can read it too.
    """
    from controller.app.offline import read_private_file

    try:
        return read_private_file(path, what, most=_MAX_FILE)
    except SettingsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e


def new_key(path: Path, secret: str) -> "Ed25519PrivateKey":
    """Creates a key and writes it, mode 0600.

    Raises:
        CliError: the passphrase is too short, or the file exists.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    from controller.cli.config_files import write_new

    if len(secret) < MIN_PASSPHRASE:
        raise CliError(f"a passphrase has at least {MIN_PASSPHRASE} characters", ExitCode.USAGE)
    if path.exists():
        raise CliError(f"{path} exists, and a key is never overwritten", ExitCode.USAGE)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret.encode()))
    write_new(path, pem.decode())
    return key


def open_key(path: Path, secret: str) -> "Ed25519PrivateKey":
    """Opens a key.

    Raises:
        CliError: not a key, the wrong passphrase, or others can read the file.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_text(path, "key file").encode(), secret.encode())
    except (ValueError, TypeError) as e:
        raise CliError(f"{path} cannot be opened: not a key under a passphrase, or the wrong passphrase") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise CliError(f"{path} is not an Ed25519 key", ExitCode.USAGE)
    return key
