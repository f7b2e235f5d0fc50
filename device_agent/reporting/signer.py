"""Signs reports with the key of the device's certificate, so that they prove their origin over any transport."""

import base64
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from device_agent.errors import SettingsError
from schemas.report_signing import PrivateKey, public_key_der, sign_report

_MAX_FILE_BYTES: Final = 64 * 1024


class ReportSigner:
    """The private key of the device's certificate."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @property
    def public_key_base64(self) -> str:
        """The public key as reports carry it."""
        return base64.b64encode(public_key_der(self._key.public_key())).decode()

    def sign(self, report: bytes) -> bytes:
        """Returns the report in a signed envelope."""
        return sign_report(report, self._key)


def load_report_signer(path: Path, passphrase: str | None = None) -> ReportSigner:
    """Reads the key; a passphrase that it does not need is ignored, as TLS does with the same file.

    Raises:
        SettingsError: the key cannot be read or opened, or its type is not supported.
    """
    try:
        with path.open("rb") as file:
            key = _load_private_key(file.read(_MAX_FILE_BYTES), passphrase)
    except OSError as e:
        raise SettingsError(f"report.sign_reports: {path}: {e.strerror}") from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise SettingsError(f"report.sign_reports: {path} cannot be opened: {e}") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise SettingsError(f"report.sign_reports: {path}: use an EC, Ed25519 or RSA key")
    return ReportSigner(key)


def _load_private_key(content: bytes, passphrase: str | None) -> PrivateKeyTypes:
    if passphrase is not None and b"ENCRYPTED" not in content:
        passphrase = None
    return load_pem_private_key(content, None if passphrase is None else passphrase.encode())
