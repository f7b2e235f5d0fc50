"""What matters of a certificate, found out without keeping the library that reads certificates in memory."""

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.errors import AgentError
from device_agent.host.execute import ExecuteError, own_path, run

MAX_FILE: Final = 64 * 1024  # bytes
RENEW_AT: Final = 2 / 3  # of the lifetime


class IdentityError(AgentError):
    """Key or certificate cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What matters of a certificate; times are Unix seconds, `serial` is in hex."""

    name: str
    serial: str
    start: float
    end: float
    key: bytes  # the public key as it stands in certificates

    @property
    def renew_at(self) -> float:
        """When the next one is due."""
        return self.start + (self.end - self.start) * RENEW_AT


def leaf_in(path: Path) -> CertificateInfo:
    """The first certificate of a file, read by a process of its own.

    Raises:
        IdentityError: there is none.
    """
    found = ask(path)
    names = found["names"]
    return CertificateInfo(
        name=str(names[0]) if names else "",
        serial=str(found["serial"]),
        start=float(found["start"]),
        end=float(found["end"]),
        key=base64.b64decode(found["key"]),
    )


def names_in(path: Path) -> list[str]:
    """The common names of the first certificate of a file.

    Raises:
        IdentityError: there is none.
    """
    return [str(name) for name in ask(path)["names"]]


def ask(path: Path) -> dict[str, Any]:
    """What `device_agent.identity.certificate_child` says of a file (IdentityError)."""
    try:
        done = run(
            [sys.executable, "-P", "-m", "device_agent.identity.certificate_child", str(path)], environment=own_path()
        )
        found: dict[str, Any] = json.loads(done.out)
    except (ExecuteError, ValueError) as e:
        raise IdentityError(f"{path}: {e}") from e
    return found


def read_file(path: Path) -> bytes:
    """A small file.

    Raises:
        IdentityError: not there, or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as e:
        raise IdentityError(f"{path}: {e.strerror}") from e
    if len(content) > MAX_FILE:
        raise IdentityError(f"{path}: larger than {MAX_FILE} bytes")
    return content
