"""Certificates of Cordon's own authority: settings for a controller, and files for brokers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.adapters.x509 import folder
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.building import named, new_request
from controller.domain.evolve import evolve
from controller.domain.identity.certificates import Certificate, CertificateKind, validity
from tests.support.controller_harness import START

PASSPHRASE = "k4c2-9d3f-7m1q-x8tz-5h6n-w2vb"
LISTS = "http://127.0.0.1:8481"
DAY = 86_400.0


def make_authority(where: Path, now: float, lists: str = LISTS) -> X509Authority:
    """Makes an authority in `where`/ca with the root's key in `where`/root.key; its lists are at `lists`."""
    wish = folder.AuthorityOptions(where / "ca", where / "root.key", PASSPHRASE, "Test", lists)
    return X509Authority(folder.create(wish, now))


def authority_settings(where: Path, now: float = START, **more: Any) -> dict[str, Any]:
    """Settings of a controller with the authority in `where`, which is made if absent; `more` is for `[authority]`."""
    if not (where / "ca" / folder.ISSUING).exists():
        make_authority(where, now)
    servers = ["mqtts://b:8883"]
    return {"authority": {"folder": where / "ca", "readmit_after": "0s", "device_servers": servers, **more}}


def request_for(name: str, key: Any = None, *extra: tuple[x509.ObjectIdentifier, str]) -> str:
    """A certificate request in PEM; `extra` are further parts of its subject."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([*named(name), *(x509.NameAttribute(oid, text) for oid, text in extra)])
    algorithm = hashes.SHA256() if hasattr(key, "curve") or hasattr(key, "key_size") else None
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)
    return made.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class IssuedFiles:
    """A certificate and its files: `chain` for TLS, `key` with mode 0600."""

    certificate: Certificate
    chain: Path
    key: Path


class Files:
    """Issues into a folder as `cordon ca` does: `ca.pem`, and `lists.pem` with the lists of root and issuing authority.

    An existing authority is used.
    """

    def __init__(self, where: Path, now: float, lists: str = LISTS) -> None:
        is_there = (where / "ca" / folder.ISSUING).exists()
        self.authority = X509Authority(folder.load(where / "ca")) if is_there else make_authority(where, now, lists)
        self._where = where
        self._now = now
        self._number = int(now)  # above earlier numbers
        self.ca = where / "ca.pem"
        self.ca.write_text(self.authority.trust)
        self.lists = where / "lists.pem"
        self.publish()

    def issue(
        self, name: str, kind: CertificateKind = CertificateKind.CLIENT, hosts: Sequence[str] = (), life: float = DAY
    ) -> IssuedFiles:
        """Issues a certificate for a new key."""
        secret, pem = new_request(name)
        made = self.authority.issue(
            self.authority.read(pem), kind, validity(self._now, life, None), self._now, "test", hosts
        )
        return self.keep(made, secret)

    def keep(self, made: Certificate, secret: bytes) -> IssuedFiles:
        """Writes a certificate and its key."""
        chain, key = (
            self._where / f"{made.name}-{made.serial[:8]}.pem",
            self._where / f"{made.name}-{made.serial[:8]}.key",
        )
        chain.write_text(made.pem + self.authority.chain)
        key.touch(mode=0o600)
        key.write_bytes(secret)
        return IssuedFiles(made, chain, key)

    def publish(self, *revoked: Certificate) -> None:
        """Writes new lists, with these revoked."""
        self._number += 1
        root = self.authority.root_revocations()
        assert root is not None
        gone = [evolve(one, revoked_at=self._now) for one in revoked]
        mine = self.authority.revocations(self.authority.issuer, gone, self._number, self._now, self._now + DAY)
        self.lists.write_bytes(mine.pem + root.pem)
