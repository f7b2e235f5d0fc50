"""The controller's own certificates: of its MQTT connection, its API and its update server.

Cordon does not write into the configuration: a renewed certificate lies beside the store, for the same key as the
configured one, and is used as long as it belongs to the configured key and ends later.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.files import write_file
from controller.adapters.x509 import building
from controller.adapters.x509.building import PEM
from controller.adapters.x509.folder import read_key
from controller.domain.identity.certificates import OwnCertificate
from controller.ports.certificates import AuthorityError, OwnCertificateFile
from controller.ports.errors import SettingsError

MAX_CHAIN: Final = 64 * 1024  # bytes of a certificate with its chain
_FOLDER_MODE: Final = 0o700
_MODE: Final = 0o644


class X509OwnCertificateFile(OwnCertificateFile):
    """A configured certificate with its key, and the renewed one in the folder `renewed`.

    Without `renewed` the configured file is used, and cannot be replaced.
    """

    def __init__(self, use: str, configured: Path, key: Path, renewed: Path | None) -> None:
        self._use = use
        self._configured = configured
        self._key = key
        self._renewed = None if renewed is None else renewed / f"{use}.pem"

    @property
    def use(self) -> str:
        return self._use

    @property
    def path(self) -> Path:
        """The file in use, also after a renewal."""
        return self._configured if self._renewed is None else self._renewed

    def read(self) -> OwnCertificate:
        content = _read(self._configured)
        configured = _leaf(self._configured, content)
        if self._renewed is None:
            return _described(self._use, configured)
        try:
            renewed = _leaf(self._renewed, _read(self._renewed))
        except AuthorityError:
            renewed = None
        if renewed is not None and _is_successor(renewed, configured):
            return _described(self._use, renewed)
        self._write(content)
        return _described(self._use, configured)

    def request(self) -> str:
        found = _leaf(self.path, _read(self.path))
        try:
            key = read_key(self._key, None)
        except SettingsError as e:
            raise AuthorityError(f"{self._key}: the key cannot be used: {e}") from e
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        builder = x509.CertificateSigningRequestBuilder().subject_name(found.subject)
        return builder.sign(key, algorithm).public_bytes(PEM).decode()

    def replace(self, chain: str) -> None:
        if self._renewed is None:
            raise AuthorityError(f"{self._configured} is not Cordon's to replace")
        self._write(chain.encode())

    def _write(self, content: bytes) -> None:
        assert self._renewed is not None
        try:
            self._renewed.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            write_file(self._renewed, content, _MODE, replace=True)
        except OSError as e:
            raise AuthorityError(f"{self._renewed}: cannot be written: {e.strerror}") from e


def certificate_problem(path: Path | None, now: Callable[[], float]) -> str:
    """Why a server may refuse this certificate, empty if nothing is known; for errors of a connection."""
    if path is None:
        return ""
    try:
        found = _leaf(path, _read(path))
    except AuthorityError as e:
        return str(e)
    if now() > found.not_valid_after_utc.timestamp():
        return f"certificate expired: {path} ended at {found.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    if now() < found.not_valid_before_utc.timestamp():
        return f"certificate not yet valid: {path} begins at {found.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _is_successor(renewed: x509.Certificate, configured: x509.Certificate) -> bool:
    is_same_key = building.key_digest(renewed.public_key()) == building.key_digest(configured.public_key())
    return is_same_key and renewed.not_valid_after_utc >= configured.not_valid_after_utc


def _described(use: str, found: x509.Certificate) -> OwnCertificate:
    return OwnCertificate(
        use=use,
        serial=building.serial_of(found),
        start=found.not_valid_before_utc.timestamp(),
        end=found.not_valid_after_utc.timestamp(),
        hosts=_hosts(found),
    )


def _hosts(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(one) for one in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CHAIN + 1)
    except OSError as e:
        raise AuthorityError(f"{path}: cannot be read: {e.strerror}") from e
    if len(content) > MAX_CHAIN:
        raise AuthorityError(f"{path}: larger than {MAX_CHAIN} bytes")
    return content


def _leaf(path: Path, content: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as e:
        raise AuthorityError(f"{path}: not a certificate in PEM") from e
