"""Reports that are recorded, reordered, or sent in the name of another device."""

import json
from dataclasses import replace
from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from schemas.topics import DownChannel, UpChannel, down, up
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.receipts import receipts_sent, register_signing_key, verdicts
from tests.support.reports import incoming
from tests.support.signing_device import SigningDevice


async def contained(harness: ControllerHarness, device: SigningDevice) -> None:
    """The device signs, and is restricted for telnet; the broker says that it holds it."""
    await register_signing_key(harness, device)
    assert await verdicts(harness, device.full(2, START, 23)) == [("accepted", None)]
    await harness.drain()
    assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_a_recorded_good_report_frees_nobody(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, device)
        good = device.full(1, START, 22)
        assert await verdicts(harness, good) == [("rejected", "replayed")]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_a_good_report_that_was_held_back_frees_nobody_and_an_answer_does(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, device)
        held_back = device.full(3, START, 22)  # new and well signed, and made before anybody asked
        assert await verdicts(harness, held_back) == [("accepted", None), ("resend_full", None)]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        nonce = receipts_sent(harness, "edge-1")[-1]["nonce"]
        assert await verdicts(harness, device.full(4, START, 22, answers=nonce)) == [("accepted", None)]
        assert harness.level("edge-1") is ContainmentLevel.NONE


async def test_a_nonce_survives_a_restart(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await contained(harness, device)
        nonce = receipts_sent(harness, "edge-1")[-1]["nonce"]
    async with open_harness(tmp_path / "c.db") as harness:
        await verdicts(harness, device.full(3, START, 22, answers=nonce))
        await harness.signing.keyring.refresh_pending()
        assert await verdicts(harness, device.full(3, START, 22, answers=nonce)) == [("accepted", None)]
        assert harness.level("edge-1") is ContainmentLevel.NONE


async def test_reordered_reports(tmp_path: Path) -> None:
    device = SigningDevice()
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, device, seq=10)
        late, early = device.full(12, START, 23), device.full(11, START, 22)
        assert await verdicts(harness, late, early) == [("accepted", None), ("rejected", "stale_sequence")]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_a_report_of_one_device_on_the_topic_of_another(tmp_path: Path) -> None:
    victim, thief = SigningDevice("edge-1"), SigningDevice("edge-2")
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, thief)
        message = incoming("edge-1", thief.plain(2, START, 23))
        await harness.ingest.process_batch([replace(message, topic=up("edge-1", UpChannel.POSTURE))])
        assert receipts_sent(harness, "edge-1")[-1]["reason"] == "wrong_device"
        (line,) = await harness.store.audit(kind=AuditKind.REPORT_REJECTED, device_id="edge-1")
        assert (line.entry.alert, (line.entry.detail or {})["reason"]) == (True, "wrong_device")
        await register_signing_key(harness, victim)
        assert harness.level("edge-1") is ContainmentLevel.NONE


async def test_what_is_refused_is_told_to_the_device_it_is_about(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await register_signing_key(harness, SigningDevice())
        await verdicts(harness, SigningDevice().full(2, START, 22))
        topic, payload = harness.link.sent[-1]
        assert topic == down("edge-1", DownChannel.RECEIPT)
        assert json.loads(payload)["verdict"] == "rejected"
