"""Where a secret comes from: a file, a systemd credential, a variable of the environment, a program that prints it.

Controller and agent share the notation and what runs such a program. The text of a secret, and the arguments of a
program, which may name it, are in no error.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # large, and only needed where a program is run
    import subprocess

MAX_SECRET: Final = 4096  # bytes
SECRET_HELP: Final = "a file, file:PATH, credential:NAME, env:NAME or 'command:PROGRAM ARGUMENTS'"  # noqa: S105
IN_PLACE_HELP: Final = "from file:PATH, credential:NAME, env:NAME, command:PROGRAM ARGUMENTS, or - for standard input"
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # set by systemd: the folder of the unit's credentials
COMMAND_SECONDS: Final = 30.0  # a manager may be at the other end of a network
_ENDED_SECONDS: Final = 1.0  # for what an ended program left running, such as gpg-agent, and may still write
_CHECK_SECONDS: Final = 0.1  # between two looks whether the program has ended
_MAX_ERROR: Final = 4096  # bytes of standard error
_MAX_REASON: Final = 200  # characters of it in an error
_CHUNK: Final = 4096
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KINDS: Final = ("file", "credential", "env", "command")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}")
# What clients of password managers need of this process's environment: where they find their store, their key ring or
# their server, and how they log in there. Anything else, above all Cordon's own secrets, stays here.
_PASSED: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|TZ|DISPLAY|WAYLAND_DISPLAY|DBUS_SESSION_BUS_ADDRESS|SSL_CERT_(FILE|DIR)|XDG_[A-Z_]+"
    r"|CREDENTIALS_DIRECTORY|G(NUPGHOME|PG_TTY)|(PASSWORD_STORE|GOPASS|BW|BWS|BITWARDENCLI|VAULT|BAO|OP)_[A-Z0-9_]+"
)


class SecretError(Exception):
    """A secret cannot be had; the text is one line, with the remedy."""


@dataclass(frozen=True, slots=True)
class OutsideSecret:
    """A secret that is in no file. `text` is how it is configured: `env:NAME` or `command:PROGRAM ARGUMENTS`."""

    text: str = field(repr=False)

    def __str__(self) -> str:
        """Names the source without the program's arguments."""
        kind, _, value = self.text.partition(":")
        return self.text if kind == "env" else f"{kind}:{shlex.split(value)[0]}"

    def read(self, most: int = MAX_SECRET) -> str:
        """Returns the secret without its trailing newlines.

        Raises:
            SecretError: the variable or the program is missing, the program failed or took too long, or what they gave
                is empty, not text or larger than `most` bytes.
        """
        kind, _, value = self.text.partition(":")
        if kind == "env":
            content = os.environb.get(value.encode())
            if content is None:
                raise SecretError(f"the environment has no variable {value}: set it where this program is started")
        else:
            content = _printed(shlex.split(value), most)
        if not content.strip():
            raise SecretError(f"{self} gives nothing")
        if len(content) > most:
            raise SecretError(f"{self} gives more than {most} bytes")
        try:
            return content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(f"{self} gives no text") from None  # the error has the content


SecretSource = Path | OutsideSecret


def secret_source(text: str) -> SecretSource:
    """Parses a source: `file:PATH` or a plain path, `credential:NAME`, `env:NAME`, `command:PROGRAM ARGUMENTS`.

    The words of a command are divided as by a shell; no shell is run.

    Raises:
        ValueError: what follows the colon is missing or malformed.
    """
    kind, separator, value = text.partition(":")
    if not separator or kind not in _KINDS:
        value, kind = text, "file"
    if kind == "file":
        if not value or "\0" in value:
            raise ValueError("the path of the file is missing")
        return Path(value)
    if kind == "credential":
        if _CREDENTIAL.fullmatch(value) is None:
            raise ValueError("credential:NAME needs the name of a LoadCredential= of the unit, without a path")
        # Without systemd the variable's name stays in the path: the error about the missing file shows what is missing.
        return Path(os.environ.get(CREDENTIALS, f"${CREDENTIALS}")) / value
    if kind == "env":
        if _VARIABLE.fullmatch(value) is None:
            raise ValueError("env:NAME needs the name of a variable")
        return OutsideSecret(text)
    try:
        words = shlex.split(value)
    except ValueError as e:
        raise ValueError(f"command: the quotes are not complete ({e})") from None
    if not words or not words[0] or "\0" in value:
        raise ValueError("command: the program is missing")
    return OutsideSecret(text)


def secret_in_place(text: str, option: str, read: Callable[[str], str], warn: Callable[[str], object]) -> str:
    """Returns the secret of an option that takes sources, `-` for standard input, and the secret itself.

    Of the secret itself it warns: every user of a machine sees the arguments of all processes. `read` reads a source.

    Raises:
        SecretError: standard input has none.
    """
    if text == "-":
        given = sys.stdin.readline(MAX_SECRET).strip()
        if not given:
            raise SecretError(f"{option}: standard input gives nothing")
        return given
    if ":" in text and text.partition(":")[0] in _KINDS:
        return read(text)
    warn(f"warning: other users of this machine see what {option} has; give it {IN_PLACE_HELP}")
    return text


def absolute_source(text: str) -> str:
    """Returns a source as it was written, with the whole path of a file (ValueError: as `secret_source`)."""
    source = secret_source(text)
    if not isinstance(source, Path) or text.startswith("credential:"):
        return text
    return str(source.absolute())


def key_file(text: str) -> Path:
    """Parses the source of a key that is used as a file, because TLS libraries read it themselves.

    Raises:
        ValueError: it is in no file.
    """
    source = secret_source(text)
    if isinstance(source, Path):
        return source
    raise ValueError("this key has to be a file: give its path, file:PATH or credential:NAME")


def forbidden_modes(path: Path) -> int:
    """Returns the mode bits that a secret file must not have: any of group and others.

    A credential's file shows the reading right of the service's user as that of a group where systemd grants it by an
    access list; its folder is closed to all others.
    """
    folder = os.environ.get(CREDENTIALS)
    return 0o037 if folder and path.is_relative_to(folder) else 0o077


def why_unreadable(path: Path, error: OSError) -> str:
    """Returns why a secret file cannot be read, with the remedy where it is a credential outside systemd."""
    if f"${CREDENTIALS}" in path.parts:
        return f"there are no credentials: systemd gives them to units with LoadCredential={path.name}:FILE"
    return f"{path} cannot be read: {error.strerror or error}"


def _printed(argv: Sequence[str], most: int) -> bytes:
    """Runs a program that prints a secret: without a shell, input or terminal, with a bounded time and output."""
    import subprocess

    name = _clean(argv[0].rsplit("/", 1)[-1])
    environment = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH, **environment},
            start_new_session=True,  # so that all of it can be killed
        )
    except FileNotFoundError:
        raise SecretError(f"{name} is not installed, or not in PATH: install it, or give its whole path") from None
    except OSError as e:
        raise SecretError(f"{name} cannot be started: {e.strerror}") from None
    with process:
        try:
            out, err = _output(process, name, most)
            status = process.wait()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
    if status != 0:
        raise SecretError(f"{name} ended with status {status}: {_reason(out, err)}; run it by hand as this user")
    return out


def _output(process: "subprocess.Popen[bytes]", name: str, most: int) -> tuple[bytes, bytes]:
    import selectors

    assert process.stdout is not None
    assert process.stderr is not None
    out, err, has_ended = bytearray(), bytearray(), False
    deadline = time.monotonic() + COMMAND_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map() or not has_ended:
            if not has_ended and process.poll() is not None:
                has_ended, deadline = True, time.monotonic() + _ENDED_SECONDS
            if time.monotonic() > deadline:
                if has_ended:
                    break
                raise SecretError(f"{name} did not end within {COMMAND_SECONDS:g} s: it must not ask for anything")
            for key, _ in selector.select(_CHECK_SECONDS):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk if key.data is out else chunk[: _MAX_ERROR - len(err)])
            if len(out) > most:
                raise SecretError(f"{name} prints more than {most} bytes: it has to print the secret alone")
    return bytes(out), bytes(err)


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_REASON])


def _reason(out: bytes, err: bytes) -> str:
    """Returns the last line of standard error, unless there was output: it might repeat that."""
    lines = err.decode(errors="replace").strip().splitlines()
    if out.strip():
        return "its error is not shown, because it also printed something"
    return _clean(lines[-1]) if lines else "it wrote no error"
