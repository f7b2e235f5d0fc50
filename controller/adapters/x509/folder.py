"""The authority's folder: creation, loading, and import of another authority.

`root.pem` (trust), `issuing.pem` and `issuing.key` (online), `root.crl` (the root's own list); `former/` has issuing
certificates that were replaced, whose keys still sign their lists. The root's key is not in it: it is written once,
encrypted, to a path for offline storage.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from controller.adapters.files import read_passphrase, read_secret, write_file
from controller.adapters.x509 import building
from controller.adapters.x509.building import PEM, SigningKey
from controller.domain.identity.certificates import (
    ISSUING_LIFETIME,
    ROOT_CRL_LIFETIME,
    ROOT_LIFETIME,
    backdated,
    key_weakness,
    validity,
)
from controller.domain.passphrases import root_passphrase_weakness
from controller.ports.certificates import AuthorityError
from controller.ports.errors import SettingsError
from schemas import pem
from schemas.secret_sources import SecretSource

ROOT: Final = "root.pem"
ISSUING: Final = "issuing.pem"
ISSUING_KEY: Final = "issuing.key"
ROOT_LIST: Final = "root.crl"
FORMER: Final = "former"
MAX_FORMER: Final = 64
_MAX_FILE: Final = 64 * 1024  # bytes
_MAX_KEY: Final = 16 * 1024  # bytes
_FOLDER_MODE: Final = 0o750
SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class AuthorityMaterial:
    """A loaded authority; `issuing` is the root itself in an imported authority without an intermediate."""

    root: x509.Certificate
    issuing: x509.Certificate
    key: SigningKey
    root_list: x509.CertificateRevocationList | None
    former: tuple[tuple[x509.Certificate, SigningKey], ...] = ()


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
    make_folder(wish.folder)
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
    issuing = new_issuing(f"{wish.name} issuing", key, root, root_key, wish.crl_base, now)
    start = backdated(now, ROOT_CRL_LIFETIME)
    root_list = building.revocation_list(root_name, root_key, (), int(now), start, now + ROOT_CRL_LIFETIME)
    write(wish.root_key, encrypted(root_key, wish.passphrase), SECRET_MODE)
    write(wish.folder / ISSUING_KEY, plain(key), SECRET_MODE)
    write(wish.folder / ROOT_LIST, root_list.public_bytes(PEM), PUBLIC_MODE)
    write(wish.folder / ROOT, root.public_bytes(PEM), PUBLIC_MODE)
    write(wish.folder / ISSUING, issuing.public_bytes(PEM), PUBLIC_MODE)
    return AuthorityMaterial(root, issuing, key, root_list)


def load(folder: Path, passphrase_file: SecretSource | None = None) -> AuthorityMaterial:
    """Loads an authority.

    Raises:
        SettingsError: a file is missing, readable by others, or invalid.
    """
    root = read_certificate(folder / ROOT)
    issuing = read_certificate(folder / ISSUING)
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file, "authority.passphrase_file")
    key, former = read_key(folder / ISSUING_KEY, passphrase), _former(folder, passphrase)
    if not belong_together(issuing, key):
        # A replacement was interrupted between its two files: the former pair is complete, and in force.
        kept = next((old for certificate, old in former if certificate == issuing), None)
        if kept is None:
            raise SettingsError(f"{folder / ISSUING_KEY} is not the key of {folder / ISSUING}")
        key = kept
    root_list = _root_list(folder / ROOT_LIST)
    # Who has a stolen key signs lists too: brokers shall find none of it.
    others = tuple(pair for pair in former if pair[0] != issuing and not is_revoked(pair[0], root_list))
    return AuthorityMaterial(root, issuing, key, root_list, others)


def _former(folder: Path, passphrase: str | None) -> tuple[tuple[x509.Certificate, SigningKey], ...]:
    paths = sorted((folder / FORMER).glob("*.pem"))
    if len(paths) > MAX_FORMER:
        raise SettingsError(f"authority: {folder / FORMER} has more than {MAX_FORMER} certificates")
    pairs = tuple((read_certificate(path), read_key(path.with_suffix(".key"), passphrase)) for path in paths)
    for path, (certificate, key) in zip(paths, pairs, strict=True):
        if not belong_together(certificate, key):
            raise SettingsError(f"authority: {path.with_suffix('.key')} is not the key of {path}")
    return pairs


def belong_together(certificate: x509.Certificate, key: SigningKey) -> bool:
    """Whether the key is that of the certificate."""
    return building.key_digest(key.public_key()) == building.key_digest(certificate.public_key())


def new_issuing(
    name: str, key: SigningKey, root: x509.Certificate, root_key: SigningKey, base: str, now: float
) -> x509.Certificate:
    """Signs an issuing certificate; `base`: URL of the lists.

    Raises:
        AuthorityError: not a name.
        CertificateTimeError: the root ends too soon.
    """
    where = crl_address(base, building.key_identifier(root_key.public_key()))
    when = validity(now, ISSUING_LIFETIME, root.not_valid_after_utc.timestamp())
    draft = building.authority(name, key.public_key(), when, path_length=0, crl_url=where)
    return building.signed(draft, root.subject, root_key)


def take_in(folder: Path, root: Path, issuing: Path, key: Path, passphrase: str | None, root_list: Path | None) -> None:
    """Checks another authority and copies it into the folder; its key is stored without a passphrase.

    Raises:
        AuthorityError, SettingsError: there is one already, or the files do not belong together.
    """
    make_folder(folder)
    if (folder / ISSUING).exists():
        raise AuthorityError(f"{folder / ISSUING} is there already; an authority is never overwritten")
    top = read_certificate(root)
    middle, secret = read_issuing(root, top, issuing, key, passphrase)
    given = None if root_list is None else _root_list(root_list)
    if given is not None:
        if given.issuer != top.subject or not given.is_signature_valid(top.public_key()):  # type: ignore[arg-type]
            raise AuthorityError(f"{root_list} is not signed by {root}")
        write(folder / ROOT_LIST, given.public_bytes(PEM), PUBLIC_MODE)
    write(folder / ISSUING_KEY, plain(secret), SECRET_MODE)
    write(folder / ROOT, top.public_bytes(PEM), PUBLIC_MODE)
    write(folder / ISSUING, middle.public_bytes(PEM), PUBLIC_MODE)


def read_issuing(
    root_path: Path, root: x509.Certificate, issuing: Path, key: Path, passphrase: str | None
) -> tuple[x509.Certificate, SigningKey]:
    """Reads an issuing certificate of this root, and its key.

    Raises:
        AuthorityError, SettingsError: the files do not belong together, or the key is weak.
    """
    middle, secret = read_certificate(issuing), read_key(key, passphrase)
    if not belong_together(middle, secret):
        raise AuthorityError(f"{key} is not the key of {issuing}")
    weak = key_weakness(building.describe_key(secret.public_key()))
    if weak:
        raise AuthorityError(f"{key}: {weak}")
    _check_authority(middle, issuing)
    try:
        middle.verify_directly_issued_by(root)
    except Exception as e:  # invalid signature, wrong name, unsupported key: all mean the same here
        raise AuthorityError(f"{issuing} was not issued by {root_path}") from e
    return middle, secret


def renew_root_list(
    folder: Path, root_key: Path, passphrase: str, now: float, compromised: x509.Certificate | None = None
) -> float:
    """Renews the root's list with its offline key; returns the next update in Unix seconds.

    What is on it stays on it; `compromised` is added.

    Raises:
        AuthorityError, SettingsError: wrong passphrase, or not this root's key.
    """
    root = read_certificate(folder / ROOT)
    key = read_key(root_key, passphrase)
    if not belong_together(root, key):
        raise AuthorityError(f"{root_key} is not the key of {folder / ROOT}")
    before = _root_list(folder / ROOT_LIST)
    last = 0 if before is None else before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    until, start = now + ROOT_CRL_LIFETIME, backdated(now, ROOT_CRL_LIFETIME)
    entries = list(before or ())
    if compromised is not None and not is_revoked(compromised, before):
        entries.append(building.revoked_entry(compromised.serial_number, now, "key_compromise"))
    fresh = building.revocation_list(root.subject, key, (), max(last + 1, int(now)), start, until, entries)
    write(folder / ROOT_LIST, fresh.public_bytes(PEM), PUBLIC_MODE, may_replace=True)
    return until


def is_revoked(certificate: x509.Certificate, root_list: x509.CertificateRevocationList | None) -> bool:
    """Whether the root's list has an issuing certificate."""
    return (
        root_list is not None
        and root_list.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    )


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


def check_new(path: Path) -> None:
    """Requires that there is no such file.

    Raises:
        AuthorityError: it is there.
    """
    if path.exists() or path.is_symlink():
        raise AuthorityError(f"{path} is there already; move it away first")


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


def make_folder(folder: Path) -> None:
    """Makes the folder if it is absent.

    Raises:
        AuthorityError: it cannot be made.
    """
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


def read_certificate(path: Path) -> x509.Certificate:
    """Reads a certificate in PEM.

    Raises:
        SettingsError: it cannot be read, or is none.
    """
    try:
        return pem.read_certificate(_read(path, _MAX_FILE))
    except pem.PemError as e:
        raise SettingsError(f"authority: {path}: {e}") from e


def _root_list(path: Path) -> x509.CertificateRevocationList | None:
    if not path.exists():
        return None
    try:
        return pem.read_crl(_read(path, _MAX_FILE))
    except pem.PemError as e:
        raise SettingsError(f"authority: {path}: {e}") from e


def read_key(path: Path, passphrase: str | None) -> SigningKey:
    """Reads a private key in PEM that only its owner can read.

    Raises:
        SettingsError: it cannot be read, others can read it, another passphrase, or no signing key.
    """
    text = read_secret(path, "authority", most=_MAX_KEY)
    try:
        key = serialization.load_pem_private_key(text.encode(), None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError) as e:
        raise SettingsError(f"authority: {path} cannot be opened: not a key in PEM, or another passphrase") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise SettingsError(f"authority: {path} is a key of a kind that signs no certificates")
    return key


def plain(key: SigningKey) -> bytes:
    """The key in PEM, without a passphrase."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def encrypted(key: SigningKey, passphrase: str) -> bytes:
    """The key in PEM, encrypted."""
    protection = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, protection)
