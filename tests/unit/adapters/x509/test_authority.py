"""Certificates, requests and lists as they are really built."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.adapters.x509 import folder
from controller.adapters.x509.authority import MAX_REQUEST, X509Authority, registered
from controller.adapters.x509.building import serial_of
from controller.domain.evolve import evolve
from controller.domain.identity.certificates import Certificate, CertificateKind, validity
from controller.ports.certificates import AuthorityError, CertificateRequestRefusedError
from controller.ports.errors import SettingsError
from schemas.pem import fingerprint
from tests.support.identity import DAY, LISTS, PASSPHRASE, make_authority, request_for

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority")
    make_authority(path, NOW)
    return path


@pytest.fixture(scope="module")
def authority(where: Path) -> X509Authority:
    return X509Authority(folder.load(where / "ca"))


def issue(
    authority: X509Authority, pem: str, kind: CertificateKind = CertificateKind.CLIENT, hosts: tuple[str, ...] = ()
) -> Certificate:
    return authority.issue(authority.read(pem), kind, validity(NOW, DAY, None), NOW, "test", hosts)


def loaded(one: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(one.pem.encode())


def test_files_are_as_open_as_they_may_be(where: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (where / "ca").iterdir()}
    assert modes == {"root.pem": 0o644, "issuing.pem": 0o644, "root.crl": 0o644, "issuing.key": 0o600}
    assert stat.S_IMODE((where / "root.key").stat().st_mode) == 0o600
    assert b"ENCRYPTED" in (where / "root.key").read_bytes()


def test_an_authority_is_never_overwritten(where: Path, tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="never overwritten"):
        folder.create(folder.AuthorityOptions(where / "ca", tmp_path / "root.key", PASSPHRASE, "Test", LISTS), NOW)


def test_a_weak_passphrase_makes_no_authority(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="strong passphrase"):
        folder.create(folder.AuthorityOptions(tmp_path / "ca", tmp_path / "root.key", "secret", "Test", LISTS), NOW)
    assert not (tmp_path / "ca").exists()


def test_the_chain_holds(authority: X509Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.trust.encode())
    issuing = x509.load_pem_x509_certificate(authority.chain.encode())
    leaf = loaded(issue(authority, request_for("edge-1")))
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    assert fingerprint(root) == authority.info.fingerprint
    assert authority.info.crl_url == f"{LISTS}/crl/{authority.issuer}.pem"


def test_a_client_certificate_says_what_it_is_for_and_where_its_list_is(authority: X509Authority) -> None:
    made = loaded(issue(authority, request_for("edge-1")))
    assert made.subject.rfc4514_string() == "CN=edge-1"
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    points = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    names = points[0].full_name
    assert names is not None
    assert [name.value for name in names] == [authority.info.crl_url]
    issuing = x509.load_pem_x509_certificate(authority.chain.encode())
    assert issuing.extensions.get_extension_for_class(x509.CRLDistributionPoints)


def test_a_server_certificate_has_its_hosts(authority: X509Authority) -> None:
    made = loaded(issue(authority, request_for("broker"), CertificateKind.SERVER, ("broker.example", "192.0.2.1")))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_what_a_request_asks_for_beyond_its_name_is_not_given(authority: X509Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-1")])
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), critical=False)
    made = loaded(issue(authority, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()))
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def _tampered() -> str:
    lines = request_for("edge-1").splitlines()
    body = list(lines[2])
    body[10] = "A" if body[10] != "A" else "B"
    lines[2] = "".join(body)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("pem", "codes"),
    [
        pytest.param("nonsense", {"request_malformed"}, id="nonsense"),
        pytest.param("x" * (MAX_REQUEST + 1), {"request_too_large"}, id="too large"),
        pytest.param(_tampered(), {"request_forged", "request_malformed", "name_malformed", "key_weak"}, id="tampered"),
        pytest.param(request_for("d", rsa.generate_private_key(65537, 1024)), {"key_weak"}, id="short RSA"),
        pytest.param(request_for("d", ec.generate_private_key(ec.SECP192R1())), {"key_weak"}, id="small curve"),
        pytest.param(request_for("d", dsa.generate_private_key(2048)), {"key_weak"}, id="DSA"),
        pytest.param(request_for("d", None, (NameOID.COMMON_NAME, "e")), {"name_malformed"}, id="two names"),
        pytest.param(
            request_for("d", None, (NameOID.ORGANIZATION_NAME, "e")), {"name_malformed"}, id="more than a name"
        ),
    ],
)
def test_requests_that_get_nothing(authority: X509Authority, pem: str, codes: set[str]) -> None:
    with pytest.raises(CertificateRequestRefusedError) as refused:
        authority.read(pem)
    assert refused.value.code in codes


def test_a_list_names_what_was_revoked(authority: X509Authority) -> None:
    one = issue(authority, request_for("edge-1"))
    gone = evolve(one, revoked_at=NOW, reason="key_compromise")
    made = authority.revocations(authority.issuer, [gone], 7, NOW, NOW + DAY)
    found = x509.load_der_x509_crl(made.der)
    issuing = x509.load_pem_x509_certificate(authority.chain.encode())
    assert found.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]  # an EC key
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    entry = found.get_revoked_certificate_by_serial_number(int(one.serial, 16))
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert x509.load_pem_x509_crl(made.pem) == found


def test_the_roots_own_list_is_signed_again_with_its_key(tmp_path: Path) -> None:
    make_authority(tmp_path, NOW)
    later = NOW + 300 * DAY
    until = folder.renew_root_list(tmp_path / "ca", tmp_path / "root.key", PASSPHRASE, later)
    found = x509.load_pem_x509_crl((tmp_path / "ca" / folder.ROOT_LIST).read_bytes())
    assert found.next_update_utc is not None
    assert found.next_update_utc.timestamp() == int(until)
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == int(later)
    with pytest.raises(SettingsError, match="another passphrase"):
        folder.renew_root_list(tmp_path / "ca", tmp_path / "root.key", "another-passphrase-of-20", later)
    make_authority(tmp_path / "other", NOW)
    with pytest.raises(AuthorityError, match="not the key of"):
        folder.renew_root_list(tmp_path / "ca", tmp_path / "other" / "root.key", PASSPHRASE, later)


def test_an_open_key_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    make_authority(tmp_path, NOW)
    (tmp_path / "ca" / folder.ISSUING_KEY).chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        folder.load(tmp_path / "ca")


def test_anothers_authority_is_taken_in(where: Path, tmp_path: Path) -> None:
    ca = where / "ca"
    folder.take_in(tmp_path / "in", ca / "root.pem", ca / "issuing.pem", ca / "issuing.key", None, ca / "root.crl")
    taken = X509Authority(folder.load(tmp_path / "in"), "http://lists.example:80")
    assert taken.info.crl_url == f"http://lists.example:80/crl/{taken.issuer}.pem"
    assert taken.info.is_imported
    make_authority(tmp_path / "other", NOW)
    with pytest.raises(AuthorityError, match="was not issued by"):
        folder.take_in(
            tmp_path / "no", tmp_path / "other" / "ca" / "root.pem", ca / "issuing.pem", ca / "issuing.key", None, None
        )
    leaf = tmp_path / "leaf.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    leaf.write_text(issue(taken, request_for("edge-1", key)).pem)
    secret = tmp_path / "leaf.key"
    secret.touch(mode=0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(AuthorityError, match="may not sign"):
        folder.take_in(tmp_path / "no", ca / "root.pem", leaf, secret, None, None)


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
def test_proofs_by_the_key_of_a_certificate(authority: X509Authority, kind: str) -> None:
    message = b"renew"
    if kind == "ec":
        secret = ec.generate_private_key(ec.SECP256R1())
        made, proof = issue(authority, request_for("d", secret)), secret.sign(message, ec.ECDSA(hashes.SHA256()))
    elif kind == "rsa":
        large = rsa.generate_private_key(65537, 2048)
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        made, proof = issue(authority, request_for("d", large)), large.sign(message, scheme, hashes.SHA256())
    else:
        small = ed25519.Ed25519PrivateKey.generate()
        made, proof = issue(authority, request_for("d", small)), small.sign(message)
    assert authority.verify(made, message, proof)
    assert not authority.verify(made, message + b"!", proof)
    assert not authority.verify(made, message, b"nothing")


def test_certificates_of_others_are_made_known_by_their_serial(authority: X509Authority) -> None:
    one = issue(authority, request_for("edge-1"))
    known = registered(one.pem.encode(), NOW)
    assert (known.serial, known.issuer, known.name, known.key) == (one.serial, one.issuer, "edge-1", one.key)
    assert serial_of(loaded(one)) == known.serial
