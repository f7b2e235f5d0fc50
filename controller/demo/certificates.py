"""Throw-away certificates of Cordon's own authority, so that a demonstration uses TLS without set-up."""

import secrets
import time
from pathlib import Path
from typing import Final

from controller.adapters.x509 import folder
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.building import new_request
from controller.domain.identity.certificates import CertificateKind, validity

HOST: Final = "127.0.0.1"
_LIFETIME: Final = 86_400.0  # seconds


class DemoCertificateAuthority:
    """Issues into `folder`: `ca.pem`, and `{name}.pem` with `{name}.key` for each name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = time.time()
        options = folder.AuthorityOptions(
            path / "ca", path / "root.key", secrets.token_urlsafe(24), "Cordon demonstration", f"http://{HOST}:1"
        )
        self._authority = X509Authority(folder.create(options, self._now))
        self.ca = path / "ca.pem"
        self.ca.write_text(self._authority.trust)

    def server(self) -> tuple[Path, Path]:
        """The paths of the server certificate for this machine and of its key."""
        return self._issue("server", CertificateKind.SERVER, (HOST,))

    def client(self, name: str) -> tuple[Path, Path]:
        """The paths of the client certificate whose common name is `name` and of its key."""
        certificate, key = self._path / f"{name}.pem", self._path / f"{name}.key"
        return (certificate, key) if key.exists() else self._issue(name, CertificateKind.CLIENT, ())

    def _issue(self, name: str, kind: CertificateKind, hosts: tuple[str, ...]) -> tuple[Path, Path]:
        private, request = new_request(name)
        lifetime = validity(self._now, _LIFETIME, None)
        issued = self._authority.issue(self._authority.read(request), kind, lifetime, self._now, "demo", hosts)
        certificate, key = self._path / f"{name}.pem", self._path / f"{name}.key"
        certificate.write_text(issued.pem + self._authority.chain)
        key.touch(mode=0o600)
        key.write_bytes(private)
        return certificate, key
