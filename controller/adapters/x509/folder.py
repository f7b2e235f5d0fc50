"""The authority's folder: creation, loading, and import of another authority.

`root.pem` (trust), `issuing.pem` and `issuing.key` (online), `root.crl` (the root's own list). The root's key is
not in it: it is written once, encrypted, to a path for offline storage.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from controller.adapters.files import read_secret, write_file
from controller.adapters.x509 import building
from controller.adapters.x509.building import PEM, SigningKey
from controller.domain.identity.certificates import (
    ISSUING_LIFETIME,
    ROOT_CRL_LIFETIME,
    ROOT_LIFETIME,
    key_weakness,
    validity,
)
from controller.domain.passphrases import root_passphrase_weakness
from controller.ports.certificates import AuthorityError
from controller.ports.errors import SettingsError

ROOT: Final = "root.pem"
ISSUING: Final = "issuing.pem"
ISSUING_KEY: Final = "issuing.key"
ROOT_LIST: Final = "root.crl"
_MAX_FILE: Final = 64 * 1024  # bytes
_MAX_KEY: Final = 16 * 1024  # bytes
_FOLDER_MODE: Final = 0o750
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class AuthorityMaterial:
    """A loaded authority; `issuing` is the root itself in an imported authority without an intermediate."""

    root: x509.Certificate
    issuing: x509.Certificate
    key: SigningKey
    root_list: x509.CertificateRevocationList | None


@dataclass(frozen=True, slots=True)
class AuthorityOptions:
    """Options of `create`; `root_key`: path of the root's encrypted key."""

    folder: Path
    root_key: Path
    passphrase: str
    name: str
    crl_base: str


def crl_address(base: str, issuer: str) -> str:
    """Returns the URL of the list of an issuer, in PEM, which EMQX reads."""
    return f"{base.rstrip('/')}/crl/{issuer}.pem"


def create(wish: AuthorityOptions, now: float) -> AuthorityMaterial:
    """Creates root and issuing authority.

    Raises:
        AuthorityError: there is an authority already, the passphrase is weak, or a file cannot be written.
    """
    trouble = root_passphrase_weakness(wish.passphrase)
    if trouble:
        raise AuthorityError(f"the root's key needs a strong passphrase: {trouble}")
    _make_folder(wish.folder)
    there = [
        path for path in (*map(wish.folder.joinpath, (ROOT, ISSUING, ISSUING_KEY)), wish.root_key) if path.exists()
    ]
    if there:
        raise AuthorityError(f"{there[0]} is there already; an authority is never overwritten")
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    root_when = validity(now, ROOT_LIFETIME, None)
    root_name = building.named(f"{wish.name} root")
    draft = building.authority(f"{wish.name} root", root_key.public_key(), root_when, path_length=1, crl_url="")
    root = building.signed(draft, root_name, root_key, is_own=True)
    where = crl_address(wish.crl_base, building.key_identifier(root_key.public_key()))
    when = validity(now, ISSUING_LIFETIME, root_when.end)
    draft = building.authority(f"{wish.name} issuing", key.public_key(), when, path_length=0, crl_url=where)
    issuing = building.signed(draft, root_name, root_key)
    root_list = building.revocation_list(root_name, root_key, (), 1, now, now + ROOT_CRL_LIFETIME)
    write(wish.root_key, _encrypted(root_key, wish.passphrase), _SECRET_MODE)
    write(wish.folder / ISSUING_KEY, _plain(key), _SECRET_MODE)
    write(wish.folder / ROOT_LIST, root_list.public_bytes(PEM), _PUBLIC_MODE)
    write(wish.folder / ROOT, root.public_bytes(PEM), _PUBLIC_MODE)
    write(wish.folder / ISSUING, issuing.public_bytes(PEM), _PUBLIC_MODE)
    return AuthorityMaterial(root, issuing, key, root_list)


def load(folder: Path, passphrase_file: Path | None = None) -> AuthorityMaterial:
    """Loads an authority.

    Raises:
        SettingsError: a file is missing, readable by others, or invalid.
    """
    root = _certificate(folder / ROOT)
    issuing = _certificate(folder / ISSUING)
    passphrase = None if passphrase_file is None else read_secret(passphrase_file, "authority.passphrase_file")
    key = _key(folder / ISSUING_KEY, passphrase)
    if building.key_digest(key.public_key()) != building.key_digest(issuing.public_key()):
        raise SettingsError(f"{folder / ISSUING_KEY} is not the key of {folder / ISSUING}")
    return AuthorityMaterial(root, issuing, key, _root_list(folder / ROOT_LIST))


def take_in(folder: Path, root: Path, issuing: Path, key: Path, passphrase: str | None, root_list: Path | None) -> None:
    """Checks another authority and copies it into the folder; its key is stored without a passphrase.

    Raises:
        AuthorityError, SettingsError: there is one already, or the files do not belong together.
    """
    _make_folder(folder)
    if (folder / ISSUING).exists():
        raise AuthorityError(f"{folder / ISSUING} is there already; an authority is never overwritten")
    top, middle, secret = _certificate(root), _certificate(issuing), _key(key, passphrase)
    if building.key_digest(secret.public_key()) != building.key_digest(middle.public_key()):
        raise AuthorityError(f"{key} is not the key of {issuing}")
    weak = key_weakness(building.describe_key(secret.public_key()))
    if weak:
        raise AuthorityError(f"{key}: {weak}")
    _check_authority(middle, issuing)
    try:
        middle.verify_directly_issued_by(top)
    except Exception as e:  # invalid signature, wrong name, unsupported key: all mean the same here
        raise AuthorityError(f"{issuing} was not issued by {root}") from e
    given = None if root_list is None else _root_list(root_list)
    if given is not None:
        write(folder / ROOT_LIST, given.public_bytes(PEM), _PUBLIC_MODE)
    write(folder / ISSUING_KEY, _plain(secret), _SECRET_MODE)
    write(folder / ROOT, top.public_bytes(PEM), _PUBLIC_MODE)
    write(folder / ISSUING, middle.public_bytes(PEM), _PUBLIC_MODE)


def renew_root_list(folder: Path, root_key: Path, passphrase: str, now: float) -> float:
    """Renews the root's list with its offline key; returns the next update in Unix seconds.

    Raises:
        AuthorityError, SettingsError: wrong passphrase, or not this root's key.
    """
    root = _certificate(folder / ROOT)
    key = _key(root_key, passphrase)
    if building.key_digest(key.public_key()) != building.key_digest(root.public_key()):
        raise AuthorityError(f"{root_key} is not the key of {folder / ROOT}")
    before = _root_list(folder / ROOT_LIST)
    number = 1 if before is None else before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
    until = now + ROOT_CRL_LIFETIME
    fresh = building.revocation_list(root.subject, key, (), number, now, until)
    write(folder / ROOT_LIST, fresh.public_bytes(PEM), _PUBLIC_MODE, may_replace=True)
    return until


def crl_base(issuing: x509.Certificate) -> str:
    """Returns the base URL of the lists from the issuing certificate; empty if it has none."""
    try:
        points = issuing.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return ""
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier) and "/crl/" in name.value:
                return name.value.partition("/crl/")[0]
    return ""


def write(path: Path, content: bytes, mode: int, *, may_replace: bool = False) -> None:
    """The whole file under its name or none.

    Raises:
        AuthorityError: it is there and may not be replaced, or cannot be written.
    """
    try:
        write_file(path, content, mode, replace=may_replace)
    except FileExistsError as e:
        raise AuthorityError(f"{path} is there already; move it away first") from e
    except OSError as e:
        raise AuthorityError(f"{path}: cannot be written: {e.strerror}") from e


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as e:
        raise AuthorityError(f"{folder}: cannot be made: {e.strerror}") from e


def _check_authority(certificate: x509.Certificate, path: Path) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_oid(ExtensionOID.KEY_USAGE).value
    except x509.ExtensionNotFound as e:
        raise AuthorityError(f"{path} is not an authority's certificate") from e
    assert isinstance(usage, x509.KeyUsage)
    if not basic.ca or not usage.key_cert_sign or not usage.crl_sign:
        raise AuthorityError(f"{path} may not sign certificates and revocation lists")


def _read(path: Path, most: int) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise SettingsError(f"authority: {path} cannot be read: {e.strerror}") from e
    if len(content) > most:
        raise SettingsError(f"authority: {path} is larger than {most} bytes")
    return content


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path, _MAX_FILE))
    except ValueError as e:
        raise SettingsError(f"authority: {path} is not a certificate in PEM") from e


def _root_list(path: Path) -> x509.CertificateRevocationList | None:
    if not path.exists():
        return None
    try:
        return x509.load_pem_x509_crl(_read(path, _MAX_FILE))
    except ValueError as e:
        raise SettingsError(f"authority: {path} is not a revocation list in PEM") from e


def _key(path: Path, passphrase: str | None) -> SigningKey:
    text = read_secret(path, "authority", most=_MAX_KEY)
    try:
        key = serialization.load_pem_private_key(text.encode(), None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError) as e:
        raise SettingsError(f"authority: {path} cannot be opened: not a key in PEM, or another passphrase") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise SettingsError(f"authority: {path} is a key of a kind that signs no certificates")
    return key


def _plain(key: SigningKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _encrypted(key: SigningKey, passphrase: str) -> bytes:
    protection = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, protection)
