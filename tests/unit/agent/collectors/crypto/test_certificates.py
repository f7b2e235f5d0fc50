"""Certificates, generated with one defect each; chains, revocation lists and OCSP."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from tests.support.pki import DAY, NOW, Authority, IssuedCertificate, key_pem
from tests.support.root_folder import gap_texts
from tests.support.unprivileged import unprivileged

ROOT, OTHER = Authority("root"), Authority("elsewhere")
MIDDLE = Authority("middle", ROOT)


def collect(tmp_path: Path, now: float = NOW.timestamp(), **options: Any) -> dict[str, Any]:
    all_options = {"paths": [Path("/certs")], "trust_store": Path("/store.pem"), "device_id": "edge-1", **options}
    (tmp_path / "certs").mkdir(exist_ok=True)
    if not (tmp_path / "store.pem").exists():
        (tmp_path / "store.pem").write_bytes(ROOT.pem)
    section = CertificateCollector(CertificateOptions(**all_options), clock=lambda: now)(System(tmp_path))
    sent = normalise_findings({"certificates": section}).sections["certificates"]
    assert sent["state"] == "ok", sent
    return section


def collect_one(tmp_path: Path, content: bytes, **options: Any) -> dict[str, Any]:
    (tmp_path / "certs").mkdir(exist_ok=True)
    (tmp_path / "certs/edge.pem").write_bytes(content)
    entries = collect(tmp_path, **options)["entries"]
    own: dict[str, Any] = next(entry for entry in entries if entry["path"] == "/certs/edge.pem")
    return own


def test_a_valid_certificate_with_its_chain(tmp_path: Path) -> None:
    device = MIDDLE.issue("edge-1")
    (tmp_path / "middle.crl").write_bytes(MIDDLE.crl())
    entry = collect_one(
        tmp_path, device.pem + MIDDLE.pem, crl=[Path("/middle.crl")], device_certificate=Path("/certs/edge.pem")
    )
    assert entry == {
        "path": "/certs/edge.pem",
        "subject": "CN=edge-1",
        "issuer": "CN=middle",
        "serial": f"{device.certificate.serial_number:x}",
        "kind": "ec",
        "bits": 256,
        "is_ca": False,
        "self_signed": False,
        "is_own": True,
        "days_left": 300,
        "not_yet_valid": False,
        "chain": "trusted",
        "name": "matches",
        "crl": "fresh",
        "revoked": "no",
        "ocsp": "notchecked",
        "reason": "",
    }


@pytest.mark.parametrize(
    ("issued", "expected"),
    [
        (ROOT.issue("edge-1", end=NOW - DAY), {"days_left": -1, "chain": "trusted"}),
        (ROOT.issue("edge-1", end=NOW - timedelta(hours=1)), {"days_left": -1, "chain": "trusted"}),
        (ROOT.issue("edge-1", end=NOW + timedelta(hours=1)), {"days_left": 0, "chain": "trusted"}),
        (ROOT.issue("edge-1", start=NOW + DAY), {"not_yet_valid": True, "chain": "trusted"}),
        (ROOT.issue("edge-2"), {"name": "differs", "chain": "trusted"}),
        (ROOT.issue("x", names=["edge-1"]), {"name": "matches", "chain": "trusted"}),
        (MIDDLE.issue("edge-1"), {"chain": "untrusted", "reason": "none of the known authorities signed it"}),
        (OTHER.issue("edge-1"), {"chain": "untrusted", "reason": "none of the known authorities signed it"}),
        (OTHER.own, {"chain": "untrusted", "self_signed": True, "is_ca": True}),
        (Authority("edge-1", is_ca=False).own, {"chain": "untrusted", "self_signed": True, "is_ca": False}),
        (Authority("root").issue("edge-1"), {"chain": "untrusted"}),  # the authority's name with another key
        (
            ROOT.issue("edge-1", rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            {"kind": "rsa", "bits": 1024, "chain": "trusted"},
        ),
        (ROOT.issue("edge-1", ed25519.Ed25519PrivateKey.generate()), {"kind": "ed25519", "chain": "trusted"}),
    ],
)
def test_the_defect_of_a_certificate_is_reported(
    tmp_path: Path, issued: IssuedCertificate, expected: dict[str, Any]
) -> None:
    entry = collect_one(tmp_path, issued.pem)
    reason = expected.pop("reason", "")
    assert {key: entry[key] for key in expected} == expected
    assert reason in entry["reason"]


def test_a_certificate_that_is_not_a_ca_cannot_issue(tmp_path: Path) -> None:
    not_a_ca = Authority("device", ROOT, is_ca=False)
    entry = collect_one(tmp_path, not_a_ca.issue("edge-1").pem + not_a_ca.pem)
    assert entry["chain"] == "untrusted"


def test_a_chain_with_unsupported_keys_is_not_checked_instead_of_untrusted(tmp_path: Path) -> None:
    edwards = Authority("edwards", key=ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "store.pem").write_bytes(edwards.pem)
    entry = collect_one(tmp_path, edwards.issue("edge-1").pem)
    assert (entry["chain"], entry["reason"].split(";")[0]) == (
        "notchecked", "chains with Ed25519 or Ed448 keys cannot be verified"
    )  # fmt: skip


def test_chains_are_not_checked_without_a_trust_store(tmp_path: Path) -> None:
    assert collect_one(tmp_path, ROOT.issue("edge-1").pem, trust_store=Path("/none.pem"))["chain"] == "notchecked"
    section = collect(tmp_path, trust_store=Path("/none.pem"))
    assert gap_texts(section) == ["trust_store: /none.pem is not a file"]


DEVICE = ROOT.issue("edge-1")


@pytest.mark.parametrize(
    ("lists", "crl", "revoked"),
    [
        ([ROOT.crl()], "fresh", "no"),
        ([ROOT.crl(DEVICE)], "fresh", "yes"),
        ([ROOT.crl(start=NOW - 9 * DAY, end=NOW - DAY)], "stale", "notchecked"),
        ([ROOT.crl(DEVICE, start=NOW - 9 * DAY, end=NOW - DAY)], "stale", "yes"),
        ([ROOT.crl(start=NOW + DAY, end=NOW + 2 * DAY)], "stale", "notchecked"),
        ([ROOT.crl(key=OTHER.own.key)], "badsignature", "notchecked"),
        ([ROOT.crl(DEVICE, key=OTHER.own.key)], "badsignature", "notchecked"),
        ([OTHER.crl(DEVICE)], "notchecked", "notchecked"),
        ([ROOT.crl(start=NOW - 9 * DAY, end=NOW - DAY), ROOT.crl()], "fresh", "no"),
        ([], "notchecked", "notchecked"),
    ],
)
def test_revocation_is_decided_by_the_valid_lists(tmp_path: Path, lists: list[bytes], crl: str, revoked: str) -> None:
    (tmp_path / "crls").mkdir()
    for number, content in enumerate(lists):
        (tmp_path / f"crls/{number}.pem").write_bytes(content)
    entry = collect_one(tmp_path, DEVICE.pem, crl=[Path("/crls")])
    assert (entry["crl"], entry["revoked"]) == (crl, revoked)
    assert bool(entry["reason"]) == (revoked == "notchecked")


def test_a_partial_revocation_list_does_not_clear_a_certificate(tmp_path: Path) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT.own.certificate.subject)
    partial = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
    crl = builder.last_update(NOW - DAY).next_update(NOW + DAY).add_extension(partial, critical=True)
    pem = crl.sign(ROOT.own.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "part.crl").write_bytes(pem)
    entry = collect_one(tmp_path, DEVICE.pem, crl=[Path("/part.crl")])
    assert (entry["crl"], entry["revoked"]) == ("notchecked", "notchecked")
    assert "only a part" in entry["reason"]


@contextmanager
def serve(response: Any, status: int = 200) -> Iterator[str]:
    """A web server that answers each request with `response` of its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            content = response(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name of the parameter in the base class
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_downloaded_revocation_list_is_cached_for_an_hour_and_kept_when_the_server_fails(tmp_path: Path) -> None:
    requests: list[bytes] = []
    now = [NOW.timestamp()]

    def respond(body: bytes) -> bytes:
        requests.append(body)
        return ROOT.crl(DEVICE)

    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/edge.pem").write_bytes(DEVICE.pem)
    (tmp_path / "store.pem").write_bytes(ROOT.pem)
    with serve(respond) as url:
        options = CertificateOptions(paths=[Path("/certs")], trust_store=Path("/store.pem"), crl_urls=[url])
        collector = CertificateCollector(options, clock=lambda: now[0])
        for _ in range(3):
            assert collector(System(tmp_path))["entries"][0]["revoked"] == "yes"
        assert len(requests) == 1
        now[0] += 3601
        collector(System(tmp_path))
        assert len(requests) == 2
    now[0] += 3601
    section = collector(System(tmp_path))
    assert section["entries"][0]["revoked"] == "yes"
    assert "no answer" in gap_texts(section)[0]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_http_error_is_reported_as_a_problem(tmp_path: Path, status: int) -> None:
    with serve(lambda _body: ROOT.crl(), status) as url:
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs/edge.pem").write_bytes(DEVICE.pem)
        section = collect(tmp_path, crl_urls=[url])
    assert gap_texts(section) == [f"crl: the server answered {status} ({url})"]
    assert section["entries"][0]["revoked"] == "notchecked"


def _responder(
    status: ocsp.OCSPCertStatus, subject: IssuedCertificate, signer: IssuedCertificate, **options: Any
) -> bytes:
    is_revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        subject.certificate,
        ROOT.own.certificate,
        hashes.SHA1(),
        status,
        options.get("start", NOW - DAY),
        options.get("end", NOW + DAY),
        NOW - DAY if is_revoked else None,
        None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if "certificates" in options:
        builder = builder.certificates(options["certificates"])
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


HERE = (ip_network("127.0.0.0/8"),)
DELEGATE = ROOT.issue("responder", usage=ExtendedKeyUsageOID.OCSP_SIGNING)
NO_DELEGATE = ROOT.issue("responder", usage=ExtendedKeyUsageOID.SERVER_AUTH)


@pytest.mark.parametrize(
    ("status", "signer", "options", "expected", "reason"),
    [
        (ocsp.OCSPCertStatus.GOOD, ROOT.own, {}, "good", ""),
        (ocsp.OCSPCertStatus.REVOKED, ROOT.own, {}, "revoked", ""),
        (ocsp.OCSPCertStatus.UNKNOWN, ROOT.own, {}, "unknown", ""),
        (ocsp.OCSPCertStatus.GOOD, DELEGATE, {"certificates": [DELEGATE.certificate]}, "good", ""),
        (
            ocsp.OCSPCertStatus.GOOD, NO_DELEGATE, {"certificates": [NO_DELEGATE.certificate]},
            "notchecked", "no valid signature",
        ),
        (ocsp.OCSPCertStatus.GOOD, OTHER.own, {}, "notchecked", "no valid signature"),
        (ocsp.OCSPCertStatus.GOOD, ROOT.own, {"end": NOW - timedelta(hours=1)}, "notchecked", "out of date"),
        (ocsp.OCSPCertStatus.GOOD, ROOT.own, {"end": None}, "good", ""),
        (ocsp.OCSPCertStatus.GOOD, ROOT.own, {"start": NOW - 8 * DAY, "end": None}, "notchecked", "out of date"),
    ],
)  # fmt: skip
def test_ocsp_responses_are_checked(
    tmp_path: Path,
    status: ocsp.OCSPCertStatus,
    signer: IssuedCertificate,
    options: dict[str, Any],
    expected: str,
    reason: str,
) -> None:
    requests: list[int] = []

    def respond(body: bytes) -> bytes:
        requests.append(ocsp.load_der_ocsp_request(body).serial_number)
        return _responder(status, device, signer, **options)

    with serve(respond) as url:
        device = ROOT.issue("edge-1", responder=url)
        assert collect_one(tmp_path, device.pem)["ocsp"] == "notchecked"
        assert requests == [], "requested although disabled"
        entry = collect_one(tmp_path, device.pem, ocsp=True, ocsp_networks=HERE)
    assert requests == [device.certificate.serial_number]
    assert entry["ocsp"] == expected
    assert reason in entry["reason"]


GOOD, GONE, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
REVOKED_NOW = (GONE, {"start": NOW - timedelta(hours=2), "end": NOW + timedelta(hours=6)})


@pytest.mark.parametrize(
    ("first", "second", "hours", "expected"),
    [
        (REVOKED_NOW, (GOOD, {"start": NOW - DAY}), 1, "revoked"),  # from before the revocation
        (REVOKED_NOW, (GOOD, {"start": NOW - DAY}), 12, "revoked"),  # which holds longer than the revocation's answer
        (REVOKED_NOW, (GOOD, {"start": NOW - timedelta(hours=2)}), 1, "revoked"),
        (REVOKED_NOW, (UNKNOWN, {"start": NOW - DAY}), 1, "revoked"),
        (REVOKED_NOW, None, 12, "revoked"),  # whoever is on the way answers nothing
        (REVOKED_NOW, (GOOD, {"start": NOW - timedelta(hours=1)}), 1, "good"),  # a hold was lifted
        ((UNKNOWN, REVOKED_NOW[1]), (GOOD, {"start": NOW - DAY}), 1, "unknown"),
        ((UNKNOWN, REVOKED_NOW[1]), (GOOD, {"start": NOW - DAY}), 12, "good"),  # the newer one is out of date
        ((GOOD, REVOKED_NOW[1]), None, 1, "notchecked"),
    ],
)
@pytest.mark.parametrize("is_another_process", [False, True])
def test_an_older_ocsp_response_undoes_no_newer_one(
    tmp_path: Path,
    first: tuple[ocsp.OCSPCertStatus, dict[str, Any]],
    second: tuple[ocsp.OCSPCertStatus, dict[str, Any]] | None,
    hours: int,
    expected: str,
    is_another_process: bool,
) -> None:
    served: list[Any] = [first, second]
    now = [NOW.timestamp()]

    def respond(_body: bytes) -> bytes:
        given = served.pop(0)
        return b"nonsense" if given is None else _responder(given[0], device, ROOT.own, **given[1])

    with serve(respond) as url:
        device = ROOT.issue("edge-1", responder=url)
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs/edge.pem").write_bytes(device.pem)
        (tmp_path / "store.pem").write_bytes(ROOT.pem)
        options = CertificateOptions([Path("/certs")], trust_store=Path("/store.pem"), ocsp=True, ocsp_networks=HERE)
        collector = CertificateCollector(options, clock=lambda: now[0])
        collector(System(tmp_path))
        if is_another_process:
            state = json.loads(json.dumps(collector.state()))
            collector = CertificateCollector(options, clock=lambda: now[0])
            collector.restore(state)
        now[0] += hours * 3600
        (entry,) = collector(System(tmp_path))["entries"]
    assert served == []
    assert entry["ocsp"] == expected


def test_invalid_ocsp_responses_are_not_used(tmp_path: Path) -> None:
    with serve(lambda _body: b"nonsense") as url:
        device = ROOT.issue("edge-1", responder=url)
        assert "cannot be read" in collect_one(tmp_path, device.pem, ocsp=True, ocsp_networks=HERE)["reason"]
    assert "no answer" in collect_one(tmp_path, device.pem, ocsp=True, ocsp_networks=HERE)["reason"]
    with serve(lambda _body: _responder(ocsp.OCSPCertStatus.GOOD, DEVICE, ROOT.own)) as url:
        device = ROOT.issue("edge-1", responder=url)
        assert "another certificate" in collect_one(tmp_path, device.pem, ocsp=True, ocsp_networks=HERE)["reason"]
    assert "names no OCSP responder" in collect_one(tmp_path, DEVICE.pem, ocsp=True, ocsp_networks=HERE)["reason"]


def test_unreadable_certificates_are_reported_as_problems(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    body = base64.b64encode(b"\x30\x03abc").decode()
    (tmp_path / "certs/bad.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    (tmp_path / "certs/cut.pem").write_bytes(DEVICE.pem[:200])
    (tmp_path / "certs/key.pem").write_bytes(key_pem(DEVICE.key))
    (tmp_path / "certs/der.crt").write_bytes(DEVICE.certificate.public_bytes(serialization.Encoding.DER))
    (tmp_path / "certs/many.pem").write_bytes(DEVICE.pem * 17)
    section = collect(tmp_path)
    assert section["entries"] is None
    assert [entry["path"] for entry in section["partial"]["entries"]] == ["/certs/der.crt"]
    assert gap_texts(section) == [
        "entries: a bundle of 17 certificates, not checked (/certs/many.pem)",
        "entries: a certificate in it cannot be read (/certs/bad.pem)",
        "entries: a certificate in it cannot be read (/certs/cut.pem)",
    ]


def test_a_host_without_certificates_is_not_applicable(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError):
        CertificateCollector()(System(tmp_path))
    (tmp_path / "etc/cordon").mkdir(parents=True)
    assert CertificateCollector()(System(tmp_path))["entries"] == []


def test_a_closed_folder_needs_root(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir(mode=0)
    (tmp_path / "store.pem").write_bytes(ROOT.pem)
    with unprivileged(), pytest.raises(FactsUnavailableError, match="needs root"):
        CertificateCollector(CertificateOptions(paths=[Path("/certs")]))(System(tmp_path))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 1200), junk=st.binary(max_size=60), at=st.integers(0, 1200))
def test_malformed_certificates_never_raise(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes, at: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "certs").mkdir()
    pem, der = DEVICE.pem, DEVICE.certificate.public_bytes(serialization.Encoding.DER)
    (folder / "certs/a.pem").write_bytes(pem[:at] + junk + pem[at + len(junk) :])
    (folder / "certs/b.der").write_bytes(der[:at] + junk + der[at + len(junk) :])
    (folder / "certs/c.pem").write_bytes(pem[:cut])
    (folder / "list.crl").write_bytes(ROOT.crl()[:cut] + junk)
    collect(folder, crl=[Path("/list.crl")])
