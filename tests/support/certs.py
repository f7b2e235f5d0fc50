"""A throw-away certificate authority for tests: one server certificate, and client certificates by common name."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme


class Certs:
    """Files in `folder`: `ca.pem`, `server.pem`, `server.key`, and `{cn}.pem`, `{cn}.key` for each client asked for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))
        self.server_cert = folder / "server.pem"
        self.server_key = folder / "server.key"
        self._write(self._authority.issue_cert("127.0.0.1", "localhost"), self.server_cert, self.server_key)

    def client(self, cn: str) -> tuple[Path, Path]:
        """A client certificate whose common name is `cn`: the paths of its chain and of its key (mode 0600)."""
        cert, key = self.folder / f"{cn}.pem", self.folder / f"{cn}.key"
        if not cert.exists():
            self._write(self._authority.issue_cert(f"{cn}@devices.example", common_name=cn), cert, key)
        return cert, key

    def new_client(self, cn: str, name: str) -> tuple[Path, Path]:
        """A further certificate for `cn` with a new key, in the files `{name}.pem` and `{name}.key`."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._write(self._authority.issue_cert(f"{cn}@devices.example", common_name=cn), cert, key)
        return cert, key

    def expired_client(self, cn: str) -> tuple[Path, Path]:
        """The same with a certificate that ended long ago."""
        cert, key = self.folder / f"expired-{cn}.pem", self.folder / f"expired-{cn}.key"
        start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)
        made = self._authority.issue_cert(f"{cn}@devices.example", common_name=cn, not_before=start, not_after=end)
        self._write(made, cert, key)
        return cert, key

    def context(self, cn: str) -> ssl.SSLContext:
        """A client's context with the certificate of `cn`."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.client(cn))
        return context

    @staticmethod
    def _write(leaf: trustme.LeafCert, cert: Path, key: Path) -> None:
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
