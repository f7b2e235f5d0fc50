"""Replaces the issuing certificate; the key of the replaced one stays to sign its list until its certificates ended."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.adapters.files import read_passphrase
from controller.adapters.x509 import building, folder
from controller.adapters.x509.building import PEM, SigningKey
from controller.adapters.x509.folder import AuthorityMaterial
from controller.domain.identity.certificates import MAX_NAME, CertificateTimeError
from controller.ports.certificates import AuthorityError
from schemas.secret_sources import SecretSource

_SUFFIX_LENGTH: Final = 8  # hexadecimal digits of the key identifier
_MAX_PREFIX: Final = MAX_NAME - _SUFFIX_LENGTH - 1
_SUFFIX: Final = re.compile(f" [0-9a-f]{{{_SUFFIX_LENGTH}}}$")


@dataclass(frozen=True, slots=True)
class PresentAuthority:
    """`crl_base`: base URL of the lists, empty for the one in the issuing certificate; `passphrase_file`: of the
    issuing key, `None` if it has none.
    """

    folder: Path
    passphrase_file: SecretSource | None = None
    crl_base: str = ""


def rotate_issuing(
    present: PresentAuthority, root_key: Path, passphrase: str, now: float, *, is_compromised: bool = False
) -> AuthorityMaterial:
    """Signs a new issuing certificate with a new key, and puts it in force.

    `is_compromised`: somebody else has the present key. The root's list gets the present certificate, no list of its
    own is served any more, and its key is deleted.

    Raises:
        AuthorityError, SettingsError: wrong passphrase or key, or a file cannot be written; the present pair stays.
    """
    before = folder.load(present.folder, present.passphrase_file)
    root, secret = before.root, folder.read_key(root_key, passphrase)
    if not folder.belong_together(root, secret):
        raise AuthorityError(f"{root_key} is not the key of {present.folder / folder.ROOT}")
    base = present.crl_base or folder.crl_base(before.issuing)
    if not base:
        raise AuthorityError("the present issuing certificate has no address of lists: set authority.crl_url")
    key, names = (
        ec.generate_private_key(ec.SECP256R1()),
        before.issuing.subject.get_attributes_for_oid(NameOID.COMMON_NAME),
    )
    name = _SUFFIX.sub("", str(names[0].value)) if names else "Cordon issuing"
    # A name of its own: what looks certificates and lists up by name alone does not mix the two up.
    name = f"{name[:_MAX_PREFIX]} {building.key_identifier(key.public_key())[:_SUFFIX_LENGTH]}"
    try:
        issuing = folder.new_issuing(name, key, root, secret, base, now)
    except CertificateTimeError as e:
        raise AuthorityError("the root certificate has expired, or is about to: make a new authority") from e
    if not is_compromised:
        return _replace(present, before, issuing, key)
    folder.renew_root_list(present.folder, root_key, passphrase, now, before.issuing)
    _replace(present, before, issuing, key)
    name = building.key_identifier(before.issuing.public_key())
    for suffix in (".pem", ".key"):
        (present.folder / folder.FORMER / f"{name}{suffix}").unlink(missing_ok=True)
    return folder.load(present.folder, present.passphrase_file)


def replace_issuing(present: PresentAuthority, issuing: Path, key: Path, passphrase: str | None) -> AuthorityMaterial:
    """Puts an issuing certificate in force that the same root issued elsewhere.

    Raises:
        AuthorityError, SettingsError: the files do not belong together; the present pair stays.
    """
    before = folder.load(present.folder, present.passphrase_file)
    middle, secret = folder.read_issuing(present.folder / folder.ROOT, before.root, issuing, key, passphrase)
    if folder.belong_together(before.issuing, secret):
        raise AuthorityError(f"{issuing} has the present issuing key: a replacement has a new one")
    return _replace(present, before, middle, secret)


def _replace(
    present: PresentAuthority, before: AuthorityMaterial, issuing: x509.Certificate, key: SigningKey
) -> AuthorityMaterial:
    """First keeps the present pair, then replaces key and certificate: after each step `load` finds a whole pair."""
    where, former = present.folder, present.folder / folder.FORMER
    if len(before.former) >= folder.MAX_FORMER:
        raise AuthorityError(f"{former} has {folder.MAX_FORMER} certificates: remove those that ended long ago")
    file = present.passphrase_file
    passphrase = None if file is None else read_passphrase(file, "authority.passphrase_file")
    folder.make_folder(former)
    name = building.key_identifier(before.issuing.public_key())
    steps = (
        (former / f"{name}.key", _secret(before.key, passphrase), folder.SECRET_MODE),
        (former / f"{name}.pem", before.issuing.public_bytes(PEM), folder.PUBLIC_MODE),
        (where / folder.ISSUING_KEY, _secret(key, passphrase), folder.SECRET_MODE),
        (where / folder.ISSUING, issuing.public_bytes(PEM), folder.PUBLIC_MODE),
    )
    for path, content, mode in steps:
        folder.write(path, content, mode, may_replace=True)
    return folder.load(where, file)


def _secret(key: SigningKey, passphrase: str | None) -> bytes:
    return folder.plain(key) if passphrase is None else folder.encrypted(key, passphrase)
