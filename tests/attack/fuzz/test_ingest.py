"""100,000 hostile messages, the corpus, and examples that Hypothesis finds: each has its verdict and harms no other."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from controller.domain.audit_kinds import AuditKind
from controller.ports.messages import IncomingMessage
from controller.service.ingest.decoding import DecodedMessage, RejectedMessage, decode
from schemas.base import MAX_TEXT
from schemas.events import RejectReason, ReportReceipt
from schemas.topics import DownChannel, UpChannel, down
from tests.attack.fuzz import corpus, strategies
from tests.attack.fuzz.fuzz_run import BreachError, check_answer, run
from tests.attack.fuzz.messages import Hostile
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import stored_devices
from tests.support.memory import resident_bytes
from tests.support.reports import full, incoming

pytestmark = pytest.mark.slow

INPUTS = 100_000
UNKNOWN = 10_000
MAX_RSS_FOR_UNKNOWN = 120 * 1024 * 1024  # bytes: twelve KiB for each device, with the batches they came in


@pytest.mark.timeout(300)
async def test_a_hundred_thousand_hostile_messages(tmp_path: Path) -> None:
    tally = await run(tmp_path / "c.db", INPUTS, seed=1)
    assert sum(tally.verdicts.values()) == INPUTS
    expected = {"malformed", "invalid", "payload_too_large", "unsupported_version", "unknown_kind", "wrong_device"}
    assert {f"rejected: {reason}" for reason in (*expected, "stale_sequence")} <= set(tally.verdicts)
    assert {"accepted", "taken", "resend_full", "nobody"} <= set(tally.verdicts)


def test_the_corpus_is_what_its_script_writes() -> None:
    assert corpus.read() == corpus.lines()


@pytest.mark.parametrize("line", corpus.read(), ids=lambda line: f"{line['kind']} {line['verdict']}")
def test_the_corpus_is_judged_as_before(line: dict[str, Any]) -> None:
    payload = base64.b64decode(line["payload"])
    assert corpus.verdict(line["topic"], payload, line["retain"]) == line["verdict"]


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.topics, strategies.payloads)
def test_whatever_comes_is_read_or_refused_with_a_word_that_fits_into_a_receipt(topic: str, payload: bytes) -> None:
    content = decode(IncomingMessage(topic, payload, 1, False, False, 1, 0.0))
    if isinstance(content, DecodedMessage):
        assert topic.split("/")[2] == content.device_id
        return
    assert isinstance(content, RejectedMessage)
    assert content.reason in set(RejectReason) - {RejectReason.OTHER}
    assert 0 < len(content.detail) <= MAX_TEXT
    ReportReceipt(seq=content.seq, verdict="rejected", reason=content.reason, detail=content.detail)


async def test_ten_thousand_unknown_devices_at_once(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        before = resident_bytes()
        names = [f"new-{number:05d}" for number in range(UNKNOWN)]
        for begin in range(0, UNKNOWN, 500):
            await harness.ingest.process_batch(
                [incoming(name, full(name, 1, 22)) for name in names[begin : begin + 500]]
            )
        receipts = {topic for topic, payload in harness.link.sent if json.loads(payload)["verdict"] == "accepted"}
        assert receipts == {down(name, DownChannel.RECEIPT) for name in names}
        assert len(await stored_devices(harness.store)) == UNKNOWN
        assert resident_bytes() - before < MAX_RSS_FOR_UNKNOWN


async def test_ten_thousand_unknown_devices_where_there_is_room_for_ten(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.fleet._max_devices = 10
        for begin in range(0, UNKNOWN, 500):
            names = [f"new-{number:05d}" for number in range(begin, begin + 500)]
            await harness.ingest.process_batch([incoming(name, full(name, 1, 22)) for name in names])
        verdicts = [json.loads(payload) for _, payload in harness.link.sent]
        assert sum(one["verdict"] == "accepted" for one in verdicts) == 10
        assert sum(one.get("reason") == "too_many" for one in verdicts) == UNKNOWN - 10
        assert len(await stored_devices(harness.store)) == 10
        assert (await harness.store.counts())["dead_letters"] == 1000
        await harness.ingest.process_batch([incoming("new-00000", full("new-00000", 2, 22))])
        assert json.loads(harness.link.sent[-1][1])["verdict"] == "accepted"


async def test_other_topics_of_a_device_that_fills_one_are_read(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        flood = [incoming("noisy", full("noisy", seq, 22)) for seq in range(1, 300)]
        told = {"v": 1, "device_id": "noisy", "kind": "login_failed", "at": "2026-11-23T10:00:00Z"}
        await harness.ingest.process_batch([*flood, incoming("noisy", json.dumps(told).encode(), UpChannel.EVENT)])
        (line,) = await harness.store.audit(device_id="noisy", kind=AuditKind.DEVICE_EVENT_REPORTED)
        assert (line.entry.detail or {})["event_kind"] == "login_failed"


def test_the_gauntlet_itself_notices_what_it_is_there_for() -> None:
    one = Hostile("kind", "edge-1", "topic", b"{}")
    with pytest.raises(BreachError, match="2 answers"):
        check_answer(one, [{}, {}])
    with pytest.raises(BreachError, match="other"):
        check_answer(one, [{"verdict": "rejected", "reason": "other", "detail": "x"}])
    with pytest.raises(BreachError):
        check_answer(one, [{"verdict": "rejected", "reason": "invalid", "detail": ""}])
