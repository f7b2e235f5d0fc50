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
from tests.support.controller_harness import START, World, world
from tests.support.receipts import register_signing_key, verdicts
from tests.support.reports import full
from tests.support.signing_device import Signing


async def kinds(place: World, device_id: str = "edge-1") -> list[str]:
    return [line.entry.kind for line in await place.store.audit(device_id=device_id, newest_first=False)]


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate(),
     rsa.generate_private_key(65537, 2048)],
)  # fmt: skip
async def test_a_first_proven_contact_brings_the_key(tmp_path: Path, key: PrivateKey) -> None:
    device = Signing(key=key)
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device)
        assert await kinds(place) == [
            AuditKind.KEY_REGISTERED,
            AuditKind.REPORT_FIRST_ACCEPTED,
            AuditKind.REPORT_SIGNING_STARTED,
        ]
        assert place.fleet.devices["edge-1"].signs
        assert place.ingest.counts["signed"] == 1
    async with world(tmp_path / "c.db") as place:  # the key is kept, and so is that it signs
        assert await verdicts(place, full("edge-1", 9, 22)) == [("rejected", "unsigned")]
        assert await verdicts(place, device.full(2, START, 23)) == [("rejected", "too_many")]
        await place.signing.keyring.refresh_pending()
        assert await verdicts(place, device.full(2, START, 23)) == [("accepted", None)]


@pytest.mark.parametrize("waited", [False, True])
async def test_an_impostors_key_is_not_registered_on_the_word_of_the_victims_session(
    tmp_path: Path, waited: bool
) -> None:
    impostor = Signing()
    async with world(tmp_path / "c.db") as place:
        place.broker.is_open = True
        if waited:  # at the broker, while the controller was away: the victim came before it was heard
            place.clock.at += 600
            place.link.resumed_at = place.clock.monotonic()
        assert await verdicts(place, impostor.full(1, place.clock.at, 22)) == [("rejected", "too_many")]
        place.broker.connected["edge-1"] = START + 1  # the impostor is gone, the victim is back and proven
        await place.signing.keyring.refresh_pending()
        assert await kinds(place) == [AuditKind.KEY_REGISTRATION_REFUSED]


@pytest.mark.parametrize("grade", [AuthStrength.KNOWN, AuthStrength.CLAIMED, AuthStrength.UNSEEN])
async def test_a_contact_that_is_not_proven_brings_none(tmp_path: Path, grade: AuthStrength) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        place.broker.grades["edge-1"] = grade
        await verdicts(place, device.full(1, START, 22))
        await place.signing.keyring.refresh_pending()
        assert await verdicts(place, device.full(1, START, 22)) == [("rejected", "bad_signature")]
        assert "edge-1" not in place.fleet.devices
        assert await kinds(place) == [AuditKind.KEY_REGISTRATION_REFUSED, AuditKind.REPORT_REJECTED]


async def test_another_key_is_refused_and_an_alert(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, Signing())
        place.clock.at += 60  # so that the keys are looked up again
        thief = Signing()
        assert await verdicts(place, thief.full(2, place.clock.at, 22)) == [("rejected", "bad_signature")]
        await place.signing.keyring.refresh_pending()
        alerts = [line.entry.kind for line in await place.store.audit(alerts_only=True)]
        assert sorted(alerts) == [AuditKind.KEY_MISMATCHED, AuditKind.REPORT_REJECTED]


async def test_a_changed_report_is_refused(tmp_path: Path) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device)
        sealed = json.loads(device.full(2, START, 23))
        other = json.loads(sign_report(device.plain(2, START), device.key))
        forged = json.dumps({**sealed, "payload": other["payload"]}, separators=(",", ":")).encode()
        assert await verdicts(place, forged) == [("rejected", "bad_signature")]
        assert (await place.store.audit(kind=AuditKind.REPORT_REJECTED))[0].entry.alert


async def test_replayed_held_back_and_old(tmp_path: Path) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device, seq=100)
        bad = device.full(101, START, 23)
        assert await verdicts(place, bad) == [("accepted", None)]
        assert place.level("edge-1") is ContainmentLevel.RESTRICTED
        first = device.full(100, START, 22)
        assert await verdicts(place, first) == [("rejected", "replayed")]  # the recorded good one
        assert await verdicts(place, device.full(20, START, 22)) == [("rejected", "replayed")]
        late = device.full(102, START - 7200, 22)
        assert await verdicts(place, late) == [("rejected", "too_old")]
        early = device.full(102, START + 7200, 22)
        assert await verdicts(place, early) == [("rejected", "too_old")]
        assert place.level("edge-1") is ContainmentLevel.RESTRICTED
        reasons = {
            (line.entry.detail or {})["reason"] for line in await place.store.audit(kind=AuditKind.REPORT_REJECTED)
        }
        assert reasons == {"replayed", "too_old"}


async def test_the_last_report_again_is_told_again_and_no_sign_of_life(tmp_path: Path) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device)
        seen = place.fleet.devices["edge-1"].last_seen
        place.clock.at += 100
        assert await verdicts(place, device.full(1, START, 22)) == [("accepted", None)]
        assert place.fleet.devices["edge-1"].last_seen == seen


async def test_heartbeats_and_a_gap(tmp_path: Path) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device)
        assert await verdicts(place, device.beat(2, START, 22), device.beat(2, START, 22)) == [("rejected", "replayed")]
        assert await verdicts(place, device.beat(7, START, 22)) == []
        assert await verdicts(place, device.beat(5, START, 22)) == []  # late, and new
        assert place.fleet.devices["edge-1"].gaps == 1
        (line,) = await place.store.audit(kind=AuditKind.REPORT_SEQUENCE_GAP_FOUND)
        assert line.entry.detail == {"missing": 4, "before": 7}
        assert place.ingest.counts["missing"] == 4


async def test_who_signed_once_is_not_believed_without_until_an_operator_says_so(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, Signing())
        assert await verdicts(place, full("edge-1", 2, 22)) == [("rejected", "unsigned")]
        await place.signing.lift_signature_requirement(place.fleet, "edge-1", "operator:ada", "new key")
        assert await verdicts(place, full("edge-1", 3, 22)) == [("accepted", None)]
        assert AuditKind.REPORT_SIGNING_WAIVED in await kinds(place)


async def test_a_class_that_must_sign(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        seals = ReportSignatureVerifier(
            place.signing.keyring, place.fleet.get, SignatureRequirements(must_sign=frozenset({"*"}))
        )
        place.ingest._verifier = seals
        assert await verdicts(place, full("edge-1", 1, 22)) == [("rejected", "unsigned")]
        assert await kinds(place) == [AuditKind.REPORT_REJECTED]


async def test_a_receipt_that_was_not_heard_is_told(tmp_path: Path) -> None:
    device = Signing()
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, device)
        await verdicts(place, device.full(2, START, 80, receipt="sha256:" + "0" * 64))
        assert AuditKind.REPORT_RECEIPT_MISSED in await kinds(place)


async def test_a_report_of_one_device_in_the_branch_of_another(tmp_path: Path) -> None:
    one, other = Signing("edge-1"), Signing("edge-2")
    async with world(tmp_path / "c.db") as place:
        await register_signing_key(place, one)
        await register_signing_key(place, other)
        assert await verdicts(place, one.full(9, START, 22), device_id="edge-2") == [("rejected", "bad_signature")]


@pytest.mark.parametrize(
    "raw",
    [b'{"payloadType":', b'{"payloadType":"x"}', b'{"payloadType":' + b"[" * 5000,
     b'{"payloadType":"application/vnd.cordon.report.v1+json","payload":"","signatures":[]}'],
)  # fmt: skip
async def test_envelopes_that_are_none(tmp_path: Path, raw: bytes) -> None:
    async with world(tmp_path / "c.db") as place:
        assert await verdicts(place, raw) == [("rejected", "malformed")]


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
