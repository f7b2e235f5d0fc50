"""Signs reports with the key of the device's certificate: they prove who made them, whatever they came through."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from device_agent.errors import SettingsError
from schemas.report_signing import PrivateKey, public_bytes, seal

if TYPE_CHECKING:
    from device_agent.settings import Settings


def sealer_of(settings: "Settings", renewed: Path | None = None) -> "ReportSigner | None":
    """What signs this device's reports; none, and nothing loaded for it, where that is not asked for.

    `renewed`: the file with the pair that the connection shows by now, when it is not the one of `settings` any more.

    Raises:
        SettingsError: it is asked for, and the key cannot be used.
    """
    mqtt = settings.mqtt
    if not settings.report.sign_reports or mqtt.key is None:
        return None
    from device_agent.reporting.signer import load_sealer
    from device_agent.settings import read_secret

    passphrase = read_secret(mqtt.key_passphrase_file) if mqtt.key_passphrase_file else None
    return load_sealer(renewed or mqtt.key, passphrase)


_MAX_FILE = 64 * 1024  # bytes


class ReportSigner:
    """The device's key, ready to sign."""

    def __init__(self, key: PrivateKey) -> None:
        """With a key that certificates may have."""
        self._key = key

    @property
    def public(self) -> str:
        """The public half in base64, as it goes with reports."""
        return base64.b64encode(public_bytes(self._key.public_key())).decode()

    def wrap(self, report: bytes) -> bytes:
        """The signed envelope."""
        return seal(report, self._key)


def load_sealer(path: Path, passphrase: str | None = None) -> ReportSigner:
    """Read the key; a passphrase that it does not need is passed over, as TLS does with the same file.

    Raises:
        SettingsError: it cannot be read, opened, or is of a kind that signs no reports.
    """
    try:
        with path.open("rb") as file:
            key = _key(file.read(_MAX_FILE), passphrase)
    except OSError as e:
        raise SettingsError(f"report.sign_reports: {path}: {e.strerror}") from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise SettingsError(f"report.sign_reports: {path} cannot be opened: {e}") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise SettingsError(f"report.sign_reports: {path}: use an EC, Ed25519 or RSA key")
    return ReportSigner(key)


def _key(content: bytes, passphrase: str | None) -> PrivateKeyTypes:
    if passphrase is not None and b"ENCRYPTED" not in content:
        passphrase = None
    return load_pem_private_key(content, None if passphrase is None else passphrase.encode())
