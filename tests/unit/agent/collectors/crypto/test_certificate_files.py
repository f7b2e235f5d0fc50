"""Certificate files as programs write them, chains of other profiles than the web's, and partial revocation lists."""

import base64
import shutil
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from device_agent.collectors.crypto import revocation
from device_agent.collectors.crypto.certificate_chain import verify_chain
from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.revocation import CrlLoader
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.pki import DAY, NOW, Authority, IssuedCertificate, key_pem, named
from tests.support.root_folder import gap_texts, put

ROOT, OTHER = Authority("root"), Authority("elsewhere")
DEVICE = ROOT.issue("edge-1")
DER = DEVICE.certificate.public_bytes(serialization.Encoding.DER)
CHAIN = [DEVICE.certificate, ROOT.own.certificate]
AUX = b"\x30\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02"  # trust settings as OpenSSL writes them


def collect(root: Path, **options: Any) -> dict[str, Any]:
    if not (root / "store.pem").exists():
        put(root, "/store.pem", ROOT.pem)
    settings = CertificateOptions(paths=[Path("/certs")], trust_store=Path("/store.pem"), **options)
    return CertificateCollector(settings, clock=NOW.timestamp)(System(root))


def pem(label: str, content: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(content).decode()}\n-----END {label}-----\n".encode()


def container(encoding: serialization.Encoding) -> bytes:
    return pkcs7.serialize_certificates(CHAIN, encoding)


def as_comment(text: bytes) -> bytes:
    return b"".join(b"# " + line for line in text.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        pytest.param("a.pem", DEVICE.pem.replace(b"\n", b"\r\n"), 1, id="CRLF"),
        pytest.param("a.pem", b"\xef\xbb\xbf" + DEVICE.pem, 1, id="byte order mark"),
        pytest.param("a.pem", DEVICE.pem.decode().encode("utf-16"), 1, id="UTF-16"),
        pytest.param("a.pem", b"Bag Attributes\n    friendlyName: x\nsubject=x\n" + DEVICE.pem, 1, id="attributes"),
        pytest.param("a.pem", DEVICE.pem + b"text\n" + ROOT.pem, 2, id="two"),
        pytest.param("a.crt", DER, 1, id="DER"),
        pytest.param("a.crt", DER + b"\n", 1, id="text after DER"),
        pytest.param("a.pem", pem("TRUSTED CERTIFICATE", DER + AUX), 1, id="trusted certificate"),
        pytest.param("a.p7b", container(serialization.Encoding.DER), 2, id="PKCS #7"),
        pytest.param("a.p7b", container(serialization.Encoding.PEM), 2, id="PKCS #7 as PEM"),
        pytest.param("a.pem", as_comment(OTHER.pem) + DEVICE.pem, 1, id="one in a comment"),
        pytest.param("a.pem", DEVICE.pem.replace(b"BEGIN ", b"BEGIN \x01"), 1, id="a damaged mark"),
        pytest.param("a.pem", key_pem(DEVICE.key), 0, id="a key"),
        pytest.param("a.der", DEVICE.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo), 0, id="a public key in DER"),
        pytest.param("a.der", x509.load_pem_x509_crl(ROOT.crl()).public_bytes(
            serialization.Encoding.DER), 0, id="a revocation list in DER"),
        pytest.param("notes.txt", b"hello", 0, id="a text"),
    ],
)  # fmt: skip
def test_certificates_are_read_from_every_form(tmp_path: Path, name: str, content: bytes, count: int) -> None:
    put(tmp_path, f"/certs/{name}", content)
    section = collect(tmp_path)
    assert [entry["chain"] for entry in section["entries"]] == ["trusted"] * count
    assert not section["gaps"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.crt", DER[:200], id="cut DER"),
        pytest.param("a", DER[:10] + b"\xff" * 99 + DER[109:], id="damaged DER"),
        pytest.param("a.pem", DEVICE.pem.replace(b"-----BEGIN", b"-----BEGlN"), id="damaged mark"),
        pytest.param("a.p7b", container(serialization.Encoding.DER)[:-300], id="cut PKCS #7"),
        pytest.param("a.pem", pem("PKCS7", b"\x30\x00"), id="empty PKCS #7"),
        pytest.param("a.pem", DEVICE.pem[:-40] + ROOT.pem, id="no end"),
        pytest.param("a.cer", b"hello", id="a text with the name of a certificate"),
    ],
)
def test_what_should_be_a_certificate_and_cannot_be_read_is_a_gap(tmp_path: Path, name: str, content: bytes) -> None:
    put(tmp_path, f"/certs/{name}", content)
    assert gap_texts(collect(tmp_path)) == [f"entries: a certificate in it cannot be read (/certs/{name})"]


def test_the_devices_own_certificate_has_to_be_in_its_file(tmp_path: Path) -> None:
    put(tmp_path, "/certs/own", b"hello")
    section = collect(tmp_path, device_certificate=Path("/certs/own"))
    assert gap_texts(section) == ["entries: a certificate in it cannot be read (/certs/own)"]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-60], lambda text: pem("TRUSTED CERTIFICATE", base64.b64decode(text[28:-27]) + AUX)]
)
def test_nobody_is_untrusted_for_a_store_that_was_not_read_completely(tmp_path: Path, damage: Any) -> None:
    put(tmp_path, "/certs/own.pem", DEVICE.pem)
    put(tmp_path, "/store.pem", OTHER.pem + damage(ROOT.pem))
    section = collect(tmp_path)
    assert [entry["chain"] for entry in section["entries"]] == ["notchecked"]
    assert gap_texts(section) == ["trust_store: it was not read completely (/store.pem)"]


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.BrainpoolP512R1(), ec.SECP256K1(), ec.SECP224R1()])
@pytest.mark.parametrize("is_in_store", [True, False])
def test_a_chain_on_another_curve_is_not_checked_and_untrusted_outside_the_store(
    tmp_path: Path, curve: ec.EllipticCurve, is_in_store: bool
) -> None:
    authority = Authority("curved", key=ec.generate_private_key(curve))
    put(tmp_path, "/certs/own.pem", authority.issue("edge-1").pem)
    if is_in_store:
        put(tmp_path, "/store.pem", authority.pem)
    else:
        put(tmp_path, "/certs/zz.pem", authority.pem)
    entry = collect(tmp_path)["entries"][0]
    assert entry["chain"] == ("notchecked" if is_in_store else "untrusted")
    assert ("a kind that cannot be verified" if is_in_store else "not lead to the trust store") in entry["reason"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")
def test_a_chain_with_version_1_is_not_checked(tmp_path: Path) -> None:
    put(tmp_path, "/k.pem", key_pem(DEVICE.key))
    request = ["openssl", "req", "-new", "-key", "k.pem", "-subj", "/CN=old", "-out", "r.pem"]
    sign = ["openssl", "x509", "-req", "-in", "r.pem", "-signkey", "k.pem", "-days", "3000", "-out", "store.pem"]
    issue = ["openssl", "x509", "-req", "-in", "r.pem", "-CA", "store.pem", "-CAkey", "k.pem", "-set_serial", "5"]
    for argv in (request, sign, [*issue, "-out", "own.pem"]):
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    put(tmp_path, "/certs/own.pem", (tmp_path / "own.pem").read_bytes())
    (entry,) = collect(tmp_path)["entries"]
    assert (entry["chain"], "version 1" in entry["reason"]) == ("notchecked", True)


Entry = tuple[IssuedCertificate, x509.ReasonFlags | None, str]  # and the issuer it names, if any


def crl(
    *entries: Entry,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    authority: Authority = ROOT,
    number: int = 5,
    start: Any = NOW - DAY,
    end: Any = NOW + DAY,
) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(named(authority.name))
    builder = builder.last_update(start).next_update(end).add_extension(x509.CRLNumber(number), critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    for issued, reason, issuer in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(issued.certificate.serial_number).revocation_date(start)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        if issuer:
            names = x509.CertificateIssuer([x509.DirectoryName(named(issuer))])
            entry = entry.add_extension(names, critical=True)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.own.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def point(*, users: bool = False, indirect: bool = False) -> x509.IssuingDistributionPoint:
    name = None if users or indirect else [x509.UniformResourceIdentifier("http://crl.example/1")]
    return x509.IssuingDistributionPoint(name, None, users, False, None, indirect, False)


REVOKED: Entry = (DEVICE, None, "")
HOLD, REMOVED = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl
NAMESAKE = IssuedCertificate(OTHER.issue("x", serial=DEVICE.certificate.serial_number).certificate, DEVICE.key)
DELTA = [(x509.DeltaCRLIndicator(5), True)]
OLD: dict[str, Any] = {"start": NOW - timedelta(days=9), "end": NOW - timedelta(days=8)}


@pytest.mark.parametrize(
    ("lists", "revoked", "reason"),
    [
        pytest.param([crl(REVOKED, extensions=[(point(), True)])], "yes", "", id="on one of a distribution point"),
        pytest.param([crl(REVOKED, extensions=[(point(users=True), True)])], "yes", "", id="on one for users"),
        pytest.param([crl(REVOKED, extensions=[(point(), True)], **OLD)], "yes", "", id="on an old partial one"),
        pytest.param([crl(extensions=[(point(), True)])], "notchecked", "only a part", id="not on a partial one"),
        pytest.param([crl(extensions=[(point(), False)])], "notchecked", "only a part", id="though not critical"),
        pytest.param([crl(extensions=[(point(), True)]), crl()], "no", "", id="partial, and whole"),
        pytest.param([crl(REVOKED, extensions=DELTA, number=6)], "yes", "", id="on a delta"),
        pytest.param([crl(extensions=DELTA, number=6)], "notchecked", "only a part", id="not on a delta"),
        pytest.param([crl(), crl(REVOKED, extensions=DELTA, number=6)], "yes", "", id="on the delta of a base"),
        pytest.param([crl(), crl(extensions=DELTA, number=6)], "no", "", id="neither base nor delta"),
        pytest.param([crl((DEVICE, HOLD, ""))], "yes", "", id="on hold"),
        pytest.param([crl((DEVICE, HOLD, "")), crl((DEVICE, REMOVED, ""), extensions=DELTA, number=6)], "no", "",
                     id="no longer on hold"),
        pytest.param([crl((DEVICE, HOLD, ""), number=7), crl((DEVICE, REMOVED, ""), extensions=DELTA, number=6)],
                     "yes", "", id="on hold again"),
        pytest.param([crl((DEVICE, HOLD, "")), crl((DEVICE, REMOVED, ""), extensions=DELTA, number=6, **OLD)],
                     "yes", "", id="released by an old delta"),
        pytest.param([crl(REVOKED), crl((DEVICE, REMOVED, ""), extensions=DELTA, number=6)], "yes", "",
                     id="revoked for good"),
        pytest.param([crl((NAMESAKE, None, "elsewhere"), extensions=[(point(indirect=True), True)]), crl()], "no", "",
                     id="the number of another issuer"),
        pytest.param([crl((NAMESAKE, None, "elsewhere"), (DEVICE, None, "root"),
                          extensions=[(point(indirect=True), True)])], "yes", "", id="on an indirect one"),
        pytest.param([crl((DEVICE, None, "root"), extensions=[(point(indirect=True), True)], authority=OTHER), crl()],
                     "notchecked", "does not name", id="on one of another issuer"),
        pytest.param([crl(extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)])],
                     "notchecked", "not understood", id="an unknown extension"),
        pytest.param([crl(), b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"], "notchecked",
                     "could not be read", id="an unreadable one besides"),
    ],
)  # fmt: skip
def test_only_whole_lists_clear_a_certificate_and_every_list_revokes(
    tmp_path: Path, lists: list[bytes], revoked: str, reason: str
) -> None:
    put(tmp_path, "/certs/own.pem", DEVICE.pem)
    put(tmp_path, "/store.pem", ROOT.pem + OTHER.pem)
    for number, content in enumerate(lists):
        put(tmp_path, f"/crls/{number}.pem", content)
    (entry,) = collect(tmp_path, crl=[Path("/crls")])["entries"]
    assert (entry["revoked"], reason in entry["reason"]) == (revoked, True), entry


def test_a_certificate_may_name_the_issuer_of_its_revocation_list(tmp_path: Path) -> None:
    named_issuer = [x509.DirectoryName(named("elsewhere"))]
    points = x509.CRLDistributionPoints([x509.DistributionPoint(None, None, None, named_issuer)])
    builder = x509.CertificateBuilder().subject_name(named("edge-1")).issuer_name(named("root"))
    builder = builder.public_key(DEVICE.key.public_key()).serial_number(77).add_extension(points, critical=False)
    signed = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + DAY).sign(ROOT.own.key, hashes.SHA256())
    issued = IssuedCertificate(signed, DEVICE.key)
    put(tmp_path, "/certs/own.pem", issued.pem)
    put(tmp_path, "/store.pem", ROOT.pem + OTHER.pem)
    put(tmp_path, "/l.crl", crl((issued, None, "root"), extensions=[(point(indirect=True), True)], authority=OTHER))
    (entry,) = collect(tmp_path, crl=[Path("/l.crl")])["entries"]
    assert entry["revoked"] == "yes"


def test_the_list_of_an_authority_that_may_not_sign_lists_is_not_used(tmp_path: Path) -> None:
    usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
    builder = x509.CertificateBuilder().subject_name(named("root")).issuer_name(named("root")).serial_number(1)
    builder = builder.public_key(ROOT.own.key.public_key()).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.add_extension(usage, critical=True).sign(ROOT.own.key, hashes.SHA256())
    put(tmp_path, "/store.pem", signed.public_bytes(serialization.Encoding.PEM))
    put(tmp_path, "/certs/own.pem", DEVICE.pem)
    put(tmp_path, "/l.crl", ROOT.crl())
    (entry,) = collect(tmp_path, crl=[Path("/l.crl")])["entries"]
    assert (entry["crl"], entry["revoked"], "may not sign" in entry["reason"]) == ("notchecked", "notchecked", True)


LISTED = crl(REVOKED)


@pytest.mark.parametrize(
    ("second", "hours", "revoked", "gap"),
    [
        (crl(number=4), 2, "yes", "is older than the one before"),
        (crl(number=5, start=NOW - 2 * DAY), 2, "yes", "is older than the one before"),
        (b"garbage", 2, "yes", "no valid revocation list"),
        (crl(number=9, authority=Authority("other")), 2, "yes", "no valid revocation list"),
        (crl(number=9, end=NOW - timedelta(hours=1)), 2, "yes", "no valid revocation list"),
        (LISTED, 2, "yes", ""),
        (crl(number=6), 2, "no", ""),
        (crl(number=4, end=NOW + 3 * DAY), 30, "no", ""),  # the one before is out of date by then
    ],
)
def test_a_fetched_list_replaces_none_that_is_newer(second: bytes, hours: int, revoked: str, gap: str) -> None:
    loader, gaps = CrlLoader([], ["http://lists.example/x"]), GapRecorder()
    served = [LISTED, second]
    issuers, certificate = [ROOT.own.certificate], DEVICE.certificate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revocation, "fetch", lambda _url, max_bytes: served.pop(0)[:max_bytes])
        assert loader.load(System(Path("/nowhere")), issuers, NOW, gaps).status_of(certificate).revoked == "yes"
        later = NOW + timedelta(hours=hours)
        assert loader.load(System(Path("/nowhere")), issuers, later, gaps).status_of(certificate).revoked == revoked
    assert served == []
    assert [gap in one.reason for one in gaps.gaps] == ([True] if gap else [])


def test_a_root_that_another_authority_signed_too_is_trusted_by_its_key() -> None:
    """Chains carry it for devices that know the other authority only, such as Let's Encrypt's once did."""
    other, store = Authority("old root"), [ROOT.own.certificate]
    crossed, namesake = other.issue(ROOT.name, key=ROOT.own.key), other.issue(ROOT.name)
    assert verify_chain(crossed.certificate, [], store, NOW) == ("trusted", "")
    assert verify_chain(namesake.certificate, [], store, NOW)[0] == "untrusted"


def test_a_name_constraint_with_a_dot_is_not_called_untrusted() -> None:
    """openssl, NSS and Go take `.example.org`; cryptography calls it malformed."""
    middle = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.NameConstraints([x509.DNSName(".example.org")], None)
    builder = x509.CertificateBuilder().subject_name(named("middle")).issuer_name(named(ROOT.name))
    builder = builder.public_key(middle.public_key()).serial_number(7).not_valid_before(NOW - DAY)
    builder = builder.not_valid_after(NOW + DAY).add_extension(x509.BasicConstraints(True, None), critical=True)
    constrained = builder.add_extension(constraints, critical=True).sign(ROOT.own.key, hashes.SHA256())
    leaf = x509.CertificateBuilder().subject_name(named("dev")).issuer_name(named("middle")).serial_number(8)
    leaf = leaf.public_key(DEVICE.key.public_key()).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName("dev.example.org")]), critical=False)
    device = leaf.add_extension(x509.BasicConstraints(False, None), critical=True).sign(middle, hashes.SHA256())
    state, reason = verify_chain(device, [constrained], [ROOT.own.certificate], NOW)
    assert (state, "name constraints" in reason) == ("notchecked", True)
