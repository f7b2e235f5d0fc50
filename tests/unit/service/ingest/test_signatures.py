"""Signed reports through the real ingest and store: who may sign, what is refused, and what is seen of it."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import AuthStrength
from controller.service.ingest.signatures import ReportSignatureVerifier, SignatureRequirements
from schemas.base import MAX_SIGNED_BYTES
from schemas.report_signing import (
    PrivateKey,
    UnverifiedReport,
    is_signed_by,
    load_public_key,
    parse_signed_report,
    sign_report,
)
from schemas.signing import SignatureError
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.receipts import register_signing_key, verdicts
from tests.support.reports import full
from tests.support.signing_device import SigningDevice


async def kinds(harness: ControllerHarness, device_id: str = "edge-1") -> list[str]:
    return [line.entry.kind for line in await harness.store.audit(device_id=device_id, newest_first=False)]


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate(),
     rsa.generate_private_key(65537, 2048)],
)  # fmt: skip
async def test_a_first_proven_contact_brings_the_key(tmp_path: Path, key: PrivateKey) -> None:
    device = SigningDevice(key=key)
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device)
        assert await kinds(harness) == [
            AuditKind.KEY_REGISTERED,
            AuditKind.REPORT_FIRST_ACCEPTED,
            AuditKind.REPORT_SIGNING_STARTED,
        ]
        assert devices_of(harness.fleet)["edge-1"].signs
        assert harness.ingest.counts["signed"] == 1
    async with open_harness(tmp_path / "c.db") as harness:  # the key is kept, and so is that it signs
        assert await verdicts(harness, full("edge-1", 9, 22)) == [("rejected", "unsigned")]
        assert await verdicts(harness, device.full(2, START, 23)) == [("rejected", "too_many")]
        await harness.signing.keyring.refresh_pending()
        assert await verdicts(harness, device.full(2, START, 23)) == [("accepted", None)]


@pytest.mark.parametrize("waited", [False, True])
async def test_an_impostors_key_is_not_registered_on_the_word_of_the_victims_session(
    tmp_path: Path, waited: bool
) -> None:
    impostor = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.is_open = True
        if waited:  # at the broker, while the controller was away: the victim came before it was heard
            harness.clock.at += 600
            harness.link.resumed_at = harness.clock.monotonic()
        assert await verdicts(harness, impostor.full(1, harness.clock.at, 22)) == [("rejected", "too_many")]
        harness.broker.connected["edge-1"] = START + 1  # the impostor is gone, the victim is back and proven
        await harness.signing.keyring.refresh_pending()
        assert await kinds(harness) == [AuditKind.KEY_REGISTRATION_REFUSED]


@pytest.mark.parametrize("grade", [AuthStrength.KNOWN, AuthStrength.CLAIMED, AuthStrength.UNSEEN])
async def test_a_contact_that_is_not_proven_brings_none(tmp_path: Path, grade: AuthStrength) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        harness.broker.grades["edge-1"] = grade
        await verdicts(harness, device.full(1, START, 22))
        await harness.signing.keyring.refresh_pending()
        assert await verdicts(harness, device.full(1, START, 22)) == [("rejected", "bad_signature")]
        assert "edge-1" not in devices_of(harness.fleet)
        assert await kinds(harness) == [AuditKind.KEY_REGISTRATION_REFUSED, AuditKind.REPORT_REJECTED]


async def test_another_key_is_refused_and_an_alert(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, SigningDevice())
        harness.clock.at += 60  # so that the keys are looked up again
        thief = SigningDevice()
        assert await verdicts(harness, thief.full(2, harness.clock.at, 22)) == [("rejected", "bad_signature")]
        await harness.signing.keyring.refresh_pending()
        alerts = [line.entry.kind for line in await harness.store.audit(alerts_only=True)]
        assert sorted(alerts) == [AuditKind.KEY_MISMATCHED, AuditKind.REPORT_REJECTED]


async def test_a_changed_report_is_refused(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device)
        sealed = json.loads(device.full(2, START, 23))
        other = json.loads(sign_report(device.plain(2, START), device.key))
        forged = json.dumps({**sealed, "payload": other["payload"]}, separators=(",", ":")).encode()
        assert await verdicts(harness, forged) == [("rejected", "bad_signature")]
        assert (await harness.store.audit(kind=AuditKind.REPORT_REJECTED))[0].entry.alert


async def test_replayed_held_back_and_old(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device, seq=100)
        bad = device.full(101, START, 23)
        assert await verdicts(harness, bad) == [("accepted", None)]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        first = device.full(100, START, 22)
        assert await verdicts(harness, first) == [("rejected", "replayed")]  # the recorded good one
        assert await verdicts(harness, device.full(20, START, 22)) == [("rejected", "replayed")]
        late = device.full(102, START - 7200, 22)
        assert await verdicts(harness, late) == [("rejected", "too_old")]
        early = device.full(102, START + 7200, 22)
        assert await verdicts(harness, early) == [("rejected", "too_old")]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        reasons = {
            (line.entry.detail or {})["reason"] for line in await harness.store.audit(kind=AuditKind.REPORT_REJECTED)
        }
        assert reasons == {"replayed", "too_old"}


async def test_the_last_report_again_is_told_again_and_no_sign_of_life(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device)
        seen = devices_of(harness.fleet)["edge-1"].last_seen
        harness.clock.at += 100
        assert await verdicts(harness, device.full(1, START, 22)) == [("accepted", None)]
        assert devices_of(harness.fleet)["edge-1"].last_seen == seen


async def test_heartbeats_and_a_gap(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device)
        assert await verdicts(harness, device.beat(2, START, 22), device.beat(2, START, 22)) == [
            ("rejected", "replayed")
        ]
        assert await verdicts(harness, device.beat(7, START, 22)) == []
        assert await verdicts(harness, device.beat(5, START, 22)) == []  # late, and new
        assert devices_of(harness.fleet)["edge-1"].gaps == 1
        (line,) = await harness.store.audit(kind=AuditKind.REPORT_SEQUENCE_GAP_FOUND)
        assert line.entry.detail == {"missing": 4, "before": 7}
        assert harness.ingest.counts["missing"] == 4


async def test_who_signed_once_is_not_believed_without_until_an_operator_says_so(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, SigningDevice())
        assert await verdicts(harness, full("edge-1", 2, 22)) == [("rejected", "unsigned")]
        await harness.signing.lift_signature_requirement(harness.fleet, "edge-1", "operator:ada", "new key")
        assert await verdicts(harness, full("edge-1", 3, 22)) == [("accepted", None)]
        assert AuditKind.REPORT_SIGNING_WAIVED in await kinds(harness)


async def test_a_class_that_must_sign(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        seals = ReportSignatureVerifier(
            harness.signing.keyring, harness.fleet.cache, SignatureRequirements(must_sign=frozenset({"*"}))
        )
        harness.ingest.decisions.verifier = seals
        assert await verdicts(harness, full("edge-1", 1, 22)) == [("rejected", "unsigned")]
        assert await kinds(harness) == [AuditKind.REPORT_REJECTED]


async def test_a_receipt_that_was_not_heard_is_told(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device)
        await verdicts(harness, device.full(2, START, 80, receipt="sha256:" + "0" * 64))
        assert AuditKind.REPORT_RECEIPT_MISSED in await kinds(harness)


async def test_a_report_of_one_device_in_the_branch_of_another(tmp_path: Path) -> None:
    one, other = SigningDevice("edge-1"), SigningDevice("edge-2")
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, one)
        await register_signing_key(harness, other)
        assert await verdicts(harness, one.full(9, START, 22), device_id="edge-2") == [("rejected", "bad_signature")]


@pytest.mark.parametrize(
    "raw",
    [b'{"payloadType":', b'{"payloadType":"x"}', b'{"payloadType":' + b"[" * 5000,
     b'{"payloadType":"application/vnd.cordon.report.v1+json","payload":"","signatures":[]}'],
)  # fmt: skip
async def test_envelopes_that_are_none(tmp_path: Path, raw: bytes) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        assert await verdicts(harness, raw) == [("rejected", "malformed")]


def test_the_envelope() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    sealed = parse_signed_report(sign_report(b"report", key))
    assert sealed.payload == b"report"
    assert is_signed_by(sealed, key.public_key())
    assert not is_signed_by(UnverifiedReport(b"other", sealed.keyid, sealed.signature), key.public_key())
    assert len(sign_report(b"x" * MAX_SIGNED_BYTES, rsa.generate_private_key(65537, 4096))) <= 64 * 1024
    with pytest.raises(SignatureError):
        parse_signed_report(b"{}")
    with pytest.raises(ValueError, match="not a public key"):
        load_public_key(b"x")
