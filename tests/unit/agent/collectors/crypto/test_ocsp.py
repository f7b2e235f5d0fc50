"""OCSP: what a responder's answer is worth, also beside answers before it."""

import json
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.host.system import System
from tests.support.pki import DAY, NOW, Authority, IssuedCertificate
from tests.support.single_answer import serve

ROOT, OTHER = Authority("root"), Authority("elsewhere")
DEVICE = ROOT.issue("edge-1")


def collector_of(tmp_path: Path, pem: bytes, now: list[float], **options: Any) -> CertificateCollector:
    """Collects one certificate, at the time in `now`."""
    (tmp_path / "certs").mkdir(exist_ok=True)
    (tmp_path / "certs/edge.pem").write_bytes(pem)
    (tmp_path / "store.pem").write_bytes(ROOT.pem)
    wanted = CertificateOptions([Path("/certs")], trust_store=Path("/store.pem"), **options)
    return CertificateCollector(wanted, clock=lambda: now[0])


def collect_one(tmp_path: Path, pem: bytes, **options: Any) -> dict[str, Any]:
    (entry,) = collector_of(tmp_path, pem, [NOW.timestamp()], **options)(System(tmp_path))["entries"]
    return dict(entry)


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
        collector = collector_of(tmp_path, device.pem, now, ocsp=True, ocsp_networks=HERE)
        collector(System(tmp_path))
        if is_another_process:
            state = json.loads(json.dumps(collector.state()))
            collector = collector_of(tmp_path, device.pem, now, ocsp=True, ocsp_networks=HERE)
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
