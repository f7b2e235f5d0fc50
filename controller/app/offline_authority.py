"""What `cordon ca` does on this machine: over the authority's files and the store.

Adapters are imported where they are used: a command loads no more than it needs.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.app.offline import open_store

if TYPE_CHECKING:
    from controller.adapters.x509.rotation import PresentAuthority
    from controller.domain.identity.certificates import Certificate, CertificateKind
    from controller.ports.certificates import AuthorityInfo
    from controller.service.settings.settings import Settings

_PUBLIC_MODE: Final = 0o644
_SECRET_MODE: Final = 0o600


def create_authority(folder: Path, root_key: Path, passphrase: str, name: str, crl_base: str) -> "AuthorityInfo":
    """Makes a root and an issuing authority; the root's key is written encrypted to `root_key`.

    Raises:
        AuthorityError: a file exists or cannot be written, or the passphrase is weak.
    """
    from controller.adapters.x509.authority import X509Authority
    from controller.adapters.x509.folder import AuthorityOptions, create

    options = AuthorityOptions(folder, root_key, passphrase, name, crl_base)
    return X509Authority(create(options, time.time())).info


def import_authority(
    folder: Path, root: Path, issuing: Path, key: Path, passphrase: str | None, root_crl: Path | None
) -> None:
    """Copies an existing authority into `folder`.

    Raises:
        AuthorityError: a file cannot be used.
    """
    from controller.adapters.x509.folder import take_in

    take_in(folder, root, issuing, key, passphrase, root_crl)


def rotate_issuing(
    settings: "Settings", root_key: Path, passphrase: str, *, is_compromised: bool = False
) -> "AuthorityInfo":
    """Signs a new issuing certificate with the root's key, and puts it in force; `is_compromised`: see the adapter.

    Raises:
        ControllerError: a file cannot be used; the present certificate stays.
    """
    from controller.adapters.x509.authority import X509Authority
    from controller.adapters.x509.rotation import rotate_issuing

    material = rotate_issuing(
        _present_authority(settings), root_key, passphrase, time.time(), is_compromised=is_compromised
    )
    return X509Authority(material, settings.authority.crl_url or "").info


def replace_issuing(settings: "Settings", issuing: Path, key: Path, passphrase: str | None) -> "AuthorityInfo":
    """Puts an issuing certificate in force that the same root issued elsewhere.

    Raises:
        ControllerError: a file cannot be used; the present certificate stays.
    """
    from controller.adapters.x509.authority import X509Authority
    from controller.adapters.x509.rotation import replace_issuing

    material = replace_issuing(_present_authority(settings), issuing, key, passphrase)
    return X509Authority(material, settings.authority.crl_url or "").info


def _present_authority(settings: "Settings") -> "PresentAuthority":
    from controller.adapters.x509.rotation import PresentAuthority
    from controller.ports.errors import SettingsError

    authority = settings.authority
    if authority.folder is None:
        raise SettingsError("authority.folder is not set: make an authority with `cordon ca init`")
    return PresentAuthority(authority.folder, authority.passphrase_file, authority.crl_url or "")


def renew_root_crl(folder: Path, root_key: Path, passphrase: str) -> float:
    """Signs the root's own revocation list again; returns its next update in Unix seconds.

    Raises:
        AuthorityError: a file cannot be used.
    """
    from controller.adapters.x509.folder import renew_root_list

    return renew_root_list(folder, root_key, passphrase, time.time())


def register_certificates(settings: "Settings", pems: Sequence[bytes]) -> "list[Certificate]":
    """Enters certificates of another authority in the registry.

    Raises:
        ControllerError: not a certificate, one that another name or serial number has, or the store cannot be written;
            then none is registered.
    """
    from controller.adapters.sql.certificates import SqlCertificateRegistry
    from controller.adapters.x509.authority import registered

    found = [registered(pem, time.time()) for pem in pems]

    async def add() -> None:
        async with open_store(settings.store) as store:
            await SqlCertificateRegistry(store).add(*found)

    asyncio.run(add())
    return found


def issue_certificate(
    settings: "Settings", kind: "CertificateKind", name: str, hosts: Sequence[str], out: Path
) -> None:
    """Makes a key with its certificate: NAME.key, NAME.pem with the chain, and ca.pem in `out`.

    The key is written first: nothing is registered whose key cannot be kept.

    Raises:
        ControllerError: there is no authority, or a file is there already or cannot be written.
    """
    from controller.adapters.sql.certificates import SqlCertificateRegistry
    from controller.adapters.x509.building import new_request
    from controller.adapters.x509.folder import check_new, make_folder, write
    from controller.app.identity import open_authority
    from controller.domain.identity.certificates import CertificateKind
    from controller.service.identity.certificates import issue

    key, request = new_request(name)
    wanted, authority = settings.authority, open_authority(settings.authority)
    lifetime = wanted.server_lifetime if kind is CertificateKind.SERVER else wanted.device_lifetime

    async def issued() -> "Certificate":
        async with open_store(settings.store) as store:
            registry = SqlCertificateRegistry(store)
            return await issue(authority, registry, time.time(), lifetime, request, kind, hosts)

    key_file, certificate_file = out / f"{name}.key", out / f"{name}.pem"
    is_new = not out.exists()
    check_new(certificate_file)
    make_folder(out)
    write(key_file, key, _SECRET_MODE)
    try:
        made = asyncio.run(issued())
    except BaseException:
        key_file.unlink(missing_ok=True)
        if is_new:
            out.rmdir()
        raise
    write(certificate_file, (made.pem + authority.chain).encode(), _PUBLIC_MODE)
    write(out / "ca.pem", authority.trust.encode(), _PUBLIC_MODE, may_replace=True)
