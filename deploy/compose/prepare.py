# ruff: noqa: INP001 - a script, run by its path
"""Makes every secret, certificate and configuration of the compose cluster; run again, it keeps what is there.

The certificates' keys are made here, on first use, and are in no image and no repository. Each service gets a folder of
its own, so that none sees more than it needs; the authority's key is in a folder that no other service mounts.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.adapters.keys import load_signing_key
from schemas.signing import public_key_text

NODES: Final = ("node1.cordon.internal", "node2.cordon.internal", "node3.cordon.internal")
CONTROLLER_HOST: Final = "controller.cordon.internal"
CONTROLLER_ID: Final = "cordon-controller"
AGENTS: Final = ("agent-1", "agent-2")
DEVICE_PORT: Final = 8883
CONTROLLER_PORT: Final = 8884  # the listener in the zone with the controller's limits
API_PORT: Final = 18083
FOLDERS: Final = ("authority", "emqx", "controller", "store", "lab", "tests", *AGENTS)

_AUTHORITY_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=397)
_RENEW_BEFORE: Final = timedelta(days=30)
_SKEW: Final = timedelta(hours=1)  # clocks that disagree a little
_SECRET_BYTES: Final = 24
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o700


def _write(path: Path, content: bytes, mode: int) -> None:
    """The whole file under its name or none, also when this is killed."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _SECRET_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    draft.replace(path)


def _secret(path: Path) -> str:
    """The secret in this file, made if absent: letters and digits, beginning with a letter.

    EMQX reads values of the environment as HOCON, where a value of digits would become a number.
    """
    if not path.exists():
        _write(path, f"s{secrets.token_hex(_SECRET_BYTES)}\n".encode(), _SECRET_MODE)
    return path.read_text().strip()


class Authority:
    """The cluster's certificate authority, in a folder of its own."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self._now = now
        self._files = folder / "ca.pem", folder / "ca.key"
        if not self._files[1].exists():
            self._make()
        key = load_pem_private_key(self._files[1].read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        self._key = key
        self.certificate = x509.load_pem_x509_certificate(self._files[0].read_bytes())

    def _make(self) -> None:
        key = generate_private_key(SECP256R1())
        name = _name("Cordon compose cluster")
        certificate = (
            _builder(name, name, key, self._now, _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        # The key is what tells that the authority is complete: last.
        _write(self._files[0], certificate.public_bytes(Encoding.PEM), _PUBLIC_MODE)
        _write(self._files[1], _pem(key), _SECRET_MODE)

    def issue(self, folder: Path, stem: str, name: str, purpose: x509.ObjectIdentifier, hosts: Sequence[str]) -> None:
        """`{stem}.pem`, `{stem}.key` and `ca.pem` in `folder`: made where absent, renewed where about to expire."""
        _write(folder / "ca.pem", self.certificate.public_bytes(Encoding.PEM), _PUBLIC_MODE)
        chain, private = folder / f"{stem}.pem", folder / f"{stem}.key"
        if chain.exists() and private.exists() and self._is_good(chain):
            return
        key = generate_private_key(SECP256R1())
        certificate = (
            _builder(_name(name), self.certificate.subject, key, self._now, _LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write(private, _pem(key), _SECRET_MODE)
        _write(chain, certificate.public_bytes(Encoding.PEM), _PUBLIC_MODE)

    def _is_good(self, chain: Path) -> bool:
        return x509.load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc - self._now > _RENEW_BEFORE


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _servers(port: int) -> str:
    return json.dumps([f"mqtts://{node}:{port}" for node in NODES])


def _emqx(out: Path, authority: Authority) -> str:
    """What the nodes share; returns the API key as Cordon's `key:secret` line."""
    folder = out / "emqx"
    authority.issue(folder, "server", NODES[0], ExtendedKeyUsageOID.SERVER_AUTH, NODES)
    _secret(folder / "cookie")
    _secret(folder / "dashboard-password")
    return _api_key(folder)


def _api_key(folder: Path) -> str:
    line = f"cordon:{_secret(folder / 'api-secret')}\n"
    _write(folder / "api-key", line.encode(), _SECRET_MODE)  # EMQX's bootstrap file
    return line


def _controller(out: Path, authority: Authority, api_key: str) -> None:
    folder = out / "controller"
    authority.issue(folder, "mqtt", CONTROLLER_ID, ExtendedKeyUsageOID.CLIENT_AUTH, [CONTROLLER_ID])
    hosts = [CONTROLLER_HOST, "localhost"]
    authority.issue(folder, "api", CONTROLLER_HOST, ExtendedKeyUsageOID.SERVER_AUTH, hosts)
    _write(folder / "emqx.key", api_key.encode(), _SECRET_MODE)
    if not (folder / "cordon.toml").exists():
        _write(folder / "cordon.toml", _cordon_toml(out).encode(), _PUBLIC_MODE)
    # Signing key, policies, store and first token are the product's own first step.
    argv = [sys.executable, "-m", "controller.main", "init", "--dir", str(folder), "--no-broker"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cordon init failed: {done.stderr.strip()}")


def _cordon_toml(out: Path) -> str:
    apis = json.dumps([f"http://{node}:{API_PORT}" for node in NODES])
    return f"""\
# The controller of the compose cluster. Relative paths are relative to this file.

[mqtt]
servers = {_servers(CONTROLLER_PORT)}
client_id = "{CONTROLLER_ID}"
ca = "ca.pem"
certificate = "mqtt.pem"
key = "mqtt.key"

[emqx]
api = {apis}
key_file = "emqx.key"

[store]
path = {json.dumps(str(out / "store" / "cordon.db"))}

[policy]
paths = ["policies"]

[commands]
signing_key = "command-signing.key"

[api]
listen = "0.0.0.0:8480"
certificate = "api.pem"
key = "api.key"

[log]
format = "json"
"""


def _agent(out: Path, name: str, authority: Authority) -> None:
    folder = out / name
    authority.issue(folder, "mqtt", name, ExtendedKeyUsageOID.CLIENT_AUTH, [name])
    if (folder / "agent.toml").exists():
        return
    key = public_key_text(load_signing_key(out / "controller" / "command-signing.key").public_key())
    text = f"""\
device_id = "{name}"

[mqtt]
servers = {_servers(DEVICE_PORT)}
ca = {json.dumps(str(folder / "ca.pem"))}
certificate = {json.dumps(str(folder / "mqtt.pem"))}
key = {json.dumps(str(folder / "mqtt.key"))}

[commands]
controller_keys = ["{key}"]
allow = ["rescan"]

[agent]
state_dir = {json.dumps(str(folder / "state"))}
"""
    _write(folder / "agent.toml", text.encode(), _PUBLIC_MODE)


def _lab(out: Path) -> None:
    """The second cluster, which only the tests use: passwords and plain MQTT, as the recorded one had."""
    folder, tests = out / "lab", out / "tests"
    _secret(folder / "cookie")
    _secret(folder / "dashboard-password")
    password = _secret(folder / "mqtt-password")
    users = f"user_id,password,is_superuser\nlab,{password},false\n"
    _write(folder / "users.csv", users.encode(), _SECRET_MODE)
    _write(tests / "api-key", _api_key(folder).encode(), _SECRET_MODE)
    _write(tests / "mqtt-user", f"lab:{password}\n".encode(), _SECRET_MODE)


def prepare(out: Path, now: datetime) -> None:
    """Everything below `out`, one folder for each of `FOLDERS`."""
    for name in FOLDERS:
        (out / name).mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    authority = Authority(out / "authority", now)
    _controller(out, authority, _emqx(out, authority))
    for name in AGENTS:
        _agent(out, name, authority)
    _lab(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make what the compose cluster needs; keep what is there.")
    parser.add_argument("--out", type=Path, required=True, help="folder with one folder for each service")
    prepare(parser.parse_args().out.absolute(), datetime.now(UTC))
    sys.stdout.write("certificates, secrets and configurations are in place\n")
