"""Private keys, chains and revocation lists as the agent reads them, against `openssl` on generated files."""

import random
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.key_format import read_keys
from device_agent.host.system import System
from tests.oracles.verdicts import Verdicts
from tests.support.pki import DAY, Authority, IssuedCertificate, key_pem, named
from tests.support.root_folder import put

pytestmark = pytest.mark.oracles

SEEDS: Final = (1, 2026)
KEY_CASES, CHAIN_CASES, CRL_CASES = 250, 250, 250  # of each seed
# openssl judges at its own time, so these certificates are of today.
TODAY: Final = datetime.now(UTC).replace(microsecond=0)
POOL: Final[tuple[Any, ...]] = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.BrainpoolP384R1()),
    ec.generate_private_key(ec.SECP224R1()),
    ed25519.Ed25519PrivateKey.generate(),
    ed448.Ed448PrivateKey.generate(),
    dsa.generate_private_key(key_size=2048),
)
EDWARDS: Final = (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)
FORMS: Final = ("PKCS8", "TraditionalOpenSSL")


def openssl(*argv: str, cwd: Path | None = None) -> str:
    """Returns what openssl complains about; empty if it succeeds."""
    assert shutil.which("openssl"), "openssl is not installed"
    command = ["openssl", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, input="", timeout=30, check=False)
    return (done.stderr or "failed") if done.returncode else ""


def key_file(rng: random.Random) -> bytes:
    key = rng.choice(POOL)
    is_traditional = isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, dsa.DSAPrivateKey))
    text = key_pem(key, rng.choice(["", "", "secret"]), rng.choice(FORMS) if is_traditional else "PKCS8")
    kind = rng.random()
    if kind < 0.2:
        text = text.replace(b"\n", b"\r\n")
    elif kind < 0.3:
        text = b"Bag Attributes\n  friendlyName: x\n" + text
    elif kind < 0.4:
        text = Authority("x", key=POOL[1]).pem + text
    elif kind < 0.7:  # one damaged character, also in the marks
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice([b"!", b"A", b"\n", b""]) + text[at + 1 :]
    return text


@pytest.mark.parametrize("seed", SEEDS)
def test_a_key_that_openssl_reads_without_a_passphrase_is_open(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("private keys", seed)
    while verdicts.cases < KEY_CASES:
        content = key_file(rng)
        path = str(put(tmp_path, "/key.pem", content))
        is_open = openssl("pkey", "-in", path, "-noout", "-passin", "pass:") == ""
        if not is_open and openssl("pkey", "-in", path, "-noout", "-passin", "pass:secret"):
            continue  # damaged, no key for openssl
        reading = read_keys(content)
        states = {key.protected for key in reading.value}
        found = {"open"} if False in states else set()
        is_unknown = not found and (None in states or bool(reading.gaps))
        verdicts.add(content.decode(), {"open"} if is_open else set(), found, is_unknown=is_unknown)
    verdicts.check()


def authority(name: str, key: Any, issuer: Authority | None = None, *, is_ca: bool = True) -> Authority:
    made = Authority(name, issuer, is_ca, key)
    made.own = IssuedCertificate(certificate(name, key, issuer or made, is_ca=is_ca), key)
    return made


def certificate(name: str, key: Any, issuer: Authority, *, is_ca: bool = False) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer.name))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(TODAY - 9 * DAY).not_valid_after(TODAY + 9 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    signer = issuer.own.key
    return builder.sign(signer, None if isinstance(signer, EDWARDS) else hashes.SHA256())


def examine(root: Path, **options: Any) -> dict[str, Any]:
    settings = CertificateOptions(paths=[Path("/certs/leaf.pem"), Path("/certs/more.pem")], **options)
    section = CertificateCollector(settings, clock=datetime.now(UTC).timestamp)(System(root))
    entry: dict[str, Any] = next(entry for entry in section["entries"] if entry["path"] == "/certs/leaf.pem")
    return entry


@pytest.mark.parametrize("seed", SEEDS)
def test_chains_are_trusted_as_openssl_trusts_them(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("chains", seed)
    for number in range(CHAIN_CASES):
        keys = POOL if number % 50 == 0 else POOL[:2]  # chains of other keys are not checked
        root = authority("root", rng.choice(keys))
        other = authority(rng.choice(["root", "other"]), rng.choice(POOL[:2]))
        issuer = authority("middle", rng.choice(keys), root, is_ca=rng.random() < 0.8) if rng.random() < 0.5 else root
        leaf = certificate("leaf", rng.choice(POOL[:4]), issuer, is_ca=rng.random() < 0.2)
        more = [one.pem for one in (root, issuer, other) if rng.random() < 0.8]
        stored = rng.choice([[root], [root], [other], [root, other], [issuer]])
        put(tmp_path, "/certs/leaf.pem", leaf.public_bytes(serialization.Encoding.PEM))
        put(tmp_path, "/certs/more.pem", b"".join(more))
        put(tmp_path, "/store.pem", b"".join(one.pem for one in stored))
        argv = ["verify", "-auth_level", "2", "-partial_chain", "-CAfile", "store.pem", "-untrusted", "certs/more.pem"]
        error = openssl(*(argv if more else argv[:-2]), "certs/leaf.pem", cwd=tmp_path)
        chain = examine(tmp_path, trust_store=Path("/store.pem"))["chain"]
        found = {"untrusted"} if chain == "untrusted" else set()
        text = f"{number}: {error} {chain}"
        verdicts.add(text, {"untrusted"} if error else set(), found, is_unknown=chain == "notchecked")
    verdicts.check()


def revocation_list(rng: random.Random, issuer: Authority, revoked: Sequence[x509.Certificate]) -> bytes:
    is_listed = rng.random() < 0.5
    is_old = not is_listed and rng.random() < 0.2  # a certificate on an old list is revoked here
    end = TODAY - DAY if is_old else TODAY + DAY
    builder = x509.CertificateRevocationListBuilder().issuer_name(named(issuer.name))
    builder = builder.last_update(TODAY - 3 * DAY).next_update(end)
    if rng.random() < 0.2:
        part = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)  # of authorities
        builder = builder.add_extension(part, critical=True) if not is_listed else builder
    for one in revoked if is_listed else revoked[1:]:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(TODAY - 3 * DAY)
        builder = builder.add_revoked_certificate(entry.build())
    key = issuer.own.key if is_listed or rng.random() < 0.8 else POOL[1]
    signed = builder.sign(key, None if isinstance(key, EDWARDS) else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("seed", SEEDS)
def test_certificates_are_revoked_as_openssl_sees_them(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("revocation", seed)
    for _ in range(CRL_CASES):
        root = authority("root", POOL[0])
        leaf, other = (certificate(name, POOL[1], root) for name in ("leaf", "other"))
        put(tmp_path, "/certs/leaf.pem", leaf.public_bytes(serialization.Encoding.PEM))
        put(tmp_path, "/certs/more.pem")
        put(tmp_path, "/store.pem", root.pem)
        put(tmp_path, "/list.pem", revocation_list(rng, root, [leaf, other]))
        argv = ["verify", "-crl_check", "-CRLfile", "list.pem", "-CAfile", "store.pem", "certs/leaf.pem"]
        error = openssl(*argv, cwd=tmp_path)
        entry = examine(tmp_path, trust_store=Path("/store.pem"), crl=[Path("/list.pem")])
        expected = {"revoked"} if "certificate revoked" in error else {"unclear"} if error else set()
        found = {"yes": {"revoked"}, "no": set(), "notchecked": {"unclear"}}[entry["revoked"]]
        is_unknown = not error and found == {"unclear"}
        verdicts.add(f"{error}\n{entry}", expected, found, is_unknown=is_unknown)
    verdicts.check()
