"""The same damage towards the device: envelopes and receipts from whoever can publish at the broker."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings

from device_agent.actions.scan_run import Rescan
from device_agent.commands.executor import MAX_QUEUED_COMMANDS, CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.domain.report import ReportContent, ReportSender
from device_agent.domain.verdict import AcceptedCommand, CommandVerdict, ForgedCommand, RejectedCommand
from device_agent.host.clock import Clock
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import Reporter
from device_agent.settings import ReportSettings
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command, CommandResult
from schemas.posture import digest_of
from schemas.signing import sign
from schemas.topics import UpChannel
from tests.attack.fuzz import strategies
from tests.attack.fuzz.mutations import DAMAGES
from tests.support.memory import resident_bytes
from tests.support.reports import sections

pytestmark = pytest.mark.slow

INPUTS = 10_000
MAX_GROWTH = 30 * 1024 * 1024  # bytes
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
VERIFIER = CommandVerifier.from_keys("edge-1", [KEY.public_key()], ["rescan"])


def order(counter: int) -> dict[str, Any]:
    command = Command(
        command_id=f"c{counter}", device_id="edge-1", action="rescan", params={}, issued_at=NOW,
        expires_at=NOW + timedelta(minutes=10), counter=counter,
    )  # fmt: skip
    body: dict[str, Any] = json.loads(command.model_dump_json())
    return body


def verify(raw: bytes) -> CommandVerdict:
    return VERIFIER.verify(raw, counters=CommandCounters(floor=0), known_command_ids=(), now=NOW)


def test_no_damaged_envelope_runs_anything_but_what_was_signed() -> None:
    rand = random.Random(3)
    good = sign(json.dumps(order(5)).encode(), COMMAND_PAYLOAD_TYPE, KEY)
    signed = base64.b64decode(json.loads(good)["payload"])
    ran = 0
    for _ in range(INPUTS):
        raw = rand.choice(DAMAGES)(rand, json.loads(good))
        verdict = verify(raw)
        if isinstance(verdict, AcceptedCommand):
            ran += 1
            assert verdict.command == Command.model_validate_json(signed)
        else:
            assert isinstance(verdict, ForgedCommand)
            assert 0 < len(verdict.reason) <= 200
            assert verdict.reason.isprintable()
    assert 0 < ran < INPUTS / 4


def test_no_command_of_an_untrusted_key_runs() -> None:
    rand = random.Random(4)
    for number in range(INPUTS // 10):
        payload = rand.choice(DAMAGES)(rand, order(number))
        assert isinstance(verify(sign(payload[:4000], COMMAND_PAYLOAD_TYPE, STRANGER)), ForgedCommand)


def test_a_damaged_signed_command_is_rejected_or_within_the_allow_list() -> None:
    rand = random.Random(5)
    outcomes = set()
    for number in range(1, INPUTS // 5):
        payload = rand.choice(DAMAGES)(rand, order(number))
        verdict = verify(sign(payload[:20_000], COMMAND_PAYLOAD_TYPE, KEY))
        outcomes.add(type(verdict))
        if isinstance(verdict, AcceptedCommand):
            assert (verdict.command.device_id, verdict.command.action) == ("edge-1", "rescan")
            assert not verdict.command.is_expired(NOW)
    assert outcomes == {AcceptedCommand, ForgedCommand, RejectedCommand}


@settings(max_examples=500, deadline=None)
@given(strategies.payloads)
def test_any_bytes_get_a_verdict(raw: bytes) -> None:
    assert isinstance(verify(raw), ForgedCommand)


class Sent:
    """The link's place: keeps what was published."""

    def __init__(self) -> None:
        self.messages: list[tuple[UpChannel, bytes]] = []

    def __call__(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        self.messages.append((channel, payload))
        return True

    def on(self, channel: UpChannel) -> list[bytes]:
        return [payload for to, payload in self.messages if to is channel]


@contextmanager
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(folder)
    try:
        yield opened
    finally:
        opened.close()


def test_damaged_receipts_neither_stop_nor_flood_the_reporter(tmp_path: Path) -> None:
    rand, sent = random.Random(6), Sent()
    body = sections(22)
    with journal(tmp_path):
        store = ReportStore(tmp_path, first_seq=1)
        reporter = Reporter(ReportSender("edge-1", "b", "1"), ReportSettings(), store, sent, Clock(), lambda: None)
        reporter.on_scan(ReportContent(json.dumps(body), digest_of(body)), force=True)
        reporter.on_connected()
        reporter.send_due()
        seq = json.loads(sent.on(UpChannel.POSTURE)[0])["seq"]
        good = {"v": 1, "seq": seq + 1, "verdict": "rejected", "reason": "invalid", "detail": "d", "digest": None}
        before = resident_bytes()
        for _ in range(INPUTS):
            reporter.on_receipt(rand.choice(DAMAGES)(rand, good))
            reporter.send_due()
        assert resident_bytes() - before < MAX_GROWTH
        # A receipt that says `resend_full` may ask for another report, once a second at most.
        assert len(sent.messages) < 60
        reporter.on_scan(ReportContent(json.dumps(body), digest_of(body)), force=True)
        reporter.send_due()
        last = json.loads(sent.on(UpChannel.POSTURE)[-1])
        accepted = {"v": 1, "seq": last["seq"], "verdict": "accepted", "digest": last["digest"]}
        reporter.on_receipt(json.dumps(accepted).encode())
        assert store.outbox().reports == ()


def test_a_flood_of_commands_is_bounded_and_every_valid_one_gets_a_result(tmp_path: Path) -> None:
    rand, sent = random.Random(7), Sent()
    refused: list[str] = []
    with journal(tmp_path) as kept:
        commands = CommandExecutor(
            VERIFIER,
            {"rescan": Rescan()},
            kept,
            sent,
            clock=_Still(),
            on_forged=refused.append,
            on_changed=lambda: None,
        )
        for _ in range(2000):
            commands.on_envelope(rand.choice(DAMAGES)(rand, order(1)))
        assert len(refused) == 2000
        assert not sent.messages
        for counter in range(1, MAX_QUEUED_COMMANDS + 11):
            commands.on_envelope(sign(json.dumps(order(counter)).encode(), COMMAND_PAYLOAD_TYPE, KEY))
        answers = [CommandResult.model_validate_json(raw) for raw in sent.on(UpChannel.RESULT)]
        assert [one.reason for one in answers] == ["too many commands are waiting on the device"] * 10
        assert len(kept.unfinished()) == MAX_QUEUED_COMMANDS


class _Still(Clock):
    """The moment in which the commands of this test were issued."""

    def now(self) -> datetime:
        return NOW


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 30_000, b"{}" * 20_000, b"x" * 1_000_000])
def test_extreme_receipts_and_commands_are_cheap_to_reject(tmp_path: Path, raw: bytes) -> None:
    sent = Sent()
    store = ReportStore(tmp_path, first_seq=1)
    Reporter(ReportSender("edge-1", "b", "1"), ReportSettings(), store, sent, Clock(), lambda: None).on_receipt(raw)
    assert isinstance(verify(raw), ForgedCommand)
    assert not sent.messages
