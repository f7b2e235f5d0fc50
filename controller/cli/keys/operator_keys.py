"""Operators' keys: Ed25519 under a passphrase, created and opened on the operator's machine."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from controller.cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIN_PASSPHRASE: Final = 12  # characters
_MAX_FILE: Final = 16 * 1024  # bytes
_OTHERS: Final = 0o077
OperatorPassphraseFileOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="file with the passphrase; asked for without it")
]


def passphrase(path: Path | None, question: str, *, twice: bool = False) -> str:
    """Returns the passphrase in the file, or asks for it at the terminal.

    Raises:
        CliError: no terminal, or the file cannot be used.
    """
    if path is not None:
        try:
            return private_bytes(path).decode().strip()
        except UnicodeDecodeError as e:
            raise CliError(f"{path}: the passphrase is not text", ExitCode.USAGE) from e
    if not sys.stdin.isatty():
        raise CliError("the passphrase is missing: give --passphrase-file", ExitCode.USAGE)
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=twice))


def private_bytes(path: Path) -> bytes:
    """Returns the content of a file that only its owner can read.

    Raises:
        CliError: the file cannot be read, or others can read it too.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(_MAX_FILE)
    except OSError as e:
        raise CliError(f"{path}: {e.strerror}", ExitCode.USAGE) from e
    if mode & _OTHERS:
        text = f"{path} is open to others (mode {mode:04o}); mend it with: chmod 600 {path}"
        raise CliError(text, ExitCode.USAGE)
    return content


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
        key = load_pem_private_key(private_bytes(path), secret.encode())
    except (ValueError, TypeError) as e:
        raise CliError(f"{path} cannot be opened: not a key under a passphrase, or the wrong passphrase") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise CliError(f"{path} is not an Ed25519 key", ExitCode.USAGE)
    return key
