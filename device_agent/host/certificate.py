"""What a certificate says, read by a child process: the agent does not keep the X.509 library in memory."""

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.errors import AgentError
from device_agent.host.execute import ExecuteError, environment_for_self, run

MAX_FILE_BYTES: Final = 64 * 1024
RENEW_AT: Final = 2 / 3  # of the lifetime
RENEW_EARLIEST: Final = 1 / 3  # of the lifetime; the controller refuses earlier requests


class IdentityError(AgentError):
    """Key or certificate cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """The fields of a certificate that the agent uses; times in Unix seconds, `serial` in hex."""

    name: str
    serial: str
    not_before: float
    not_after: float
    public_key_der: bytes

    @property
    def lifetime(self) -> float:
        """Seconds."""
        return self.not_after - self.not_before

    def renewal_due_in(self, now: float, held: float, *, is_new: bool, spread: float = 0.0) -> float:
        """Returns the seconds until the certificate is due for renewal; 0 or less if it is.

        The clock may be wrong, so the time that the certificate was in use counts too: it is not due before a third of
        its lifetime if it is new, and due after two thirds.

        Args:
            now: the device's clock, in Unix seconds.
            held: seconds for which this process has used the certificate, those in which the machine slept included.
            is_new: whether it was issued when this process began to use it.
            spread: a share of the lifetime that is added, so that devices that enrolled together do not ask at once.
        """
        share = (RENEW_AT + spread) * self.lifetime
        by_clock = self.not_before + share - now if now >= self.not_before else 0.0
        earliest = RENEW_EARLIEST * self.lifetime - held if is_new else 0.0
        return max(earliest, min(by_clock, share - held))


def read_certificate_info(path: Path) -> CertificateInfo:
    """Reads the first certificate of a file (IdentityError)."""
    fields = _run_certificate_child(path)
    names = fields["names"]
    return CertificateInfo(
        name=str(names[0]) if names else "",
        serial=str(fields["serial"]),
        not_before=float(fields["start"]),
        not_after=float(fields["end"]),
        public_key_der=base64.b64decode(fields["key"]),
    )


def read_common_names(path: Path) -> list[str]:
    """Reads the common names of the first certificate of a file (IdentityError)."""
    return [str(name) for name in _run_certificate_child(path)["names"]]


def _run_certificate_child(path: Path) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-m", "device_agent.identity.certificate_child", str(path)]
    try:
        fields: dict[str, Any] = json.loads(run(argv, environment=environment_for_self()).stdout)
    except (ExecuteError, ValueError) as e:
        raise IdentityError(f"{path}: {e}") from e
    return fields


def read_file(path: Path) -> bytes:
    """Reads a file of at most 64 KiB (IdentityError)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise IdentityError(f"{path}: {e.strerror}") from e
    if len(content) > MAX_FILE_BYTES:
        raise IdentityError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return content
