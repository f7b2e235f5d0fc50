"""Certificates, generated with one defect each; chains and revocation lists."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from tests.support.pki import DAY, NOW, Authority, IssuedCertificate, key_pem
from tests.support.root_folder import gap_texts
from tests.support.single_answer import serve
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
