"""A challenge nonce: the next scan answers it, an earlier scan does not, and floods are rate limited."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.domain.report import ReportSender
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import CHALLENGE_SECONDS, Reporter
from device_agent.settings import ReportSettings
from schemas.events import ReceiptVerdict, ReportReceipt
from schemas.posture import REPORT, FullReport
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock

NONCE = "ab" * 16


@dataclass
class Published:
    """The published full reports."""

    reports: list[FullReport] = field(default_factory=list)

    def __call__(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        if channel is UpChannel.POSTURE:
            report = REPORT.validate_json(payload)
            if isinstance(report, FullReport):
                self.reports.append(report)
        return True


@dataclass
class Setup:
    reporter: Reporter
    published: Published
    clock: ManualAgentClock
    scans: list[str] = field(default_factory=list)

    def receipt(self, verdict: ReceiptVerdict, nonce: str | None = None) -> None:
        last = self.published.reports[-1]
        digest = last.digest if verdict is ReceiptVerdict.ACCEPTED else None
        self.reporter.on_receipt(ReportReceipt(seq=last.seq, verdict=verdict, digest=digest, nonce=nonce).to_json())

    def scan(self, port: int, *, force: bool = False) -> None:
        content = truncate_to_size(normalise_findings({"sockets": {"state": "ok", "listening": [], "note": port}}))
        self.reporter.on_scan(replace(content, challenge_nonce=self.reporter.nonce), force=force)
        self.reporter.send_due()


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    clock, published = ManualAgentClock(), Published()
    store, scans = ReportStore(tmp_path, first_seq=1), list[str]()
    sender = ReportSender("edge-1", "boot", "1.0")
    reporter = Reporter(sender, ReportSettings(), store, published, clock, lambda: scans.append(reporter.nonce))
    setup = Setup(reporter, published, clock, scans)
    reporter.on_connected()
    return setup


def test_without_a_nonce_the_answer_is_empty(setup: Setup) -> None:
    setup.scan(1)
    assert setup.published.reports[-1].answers == ""


def test_the_next_scan_answers_the_nonce(setup: Setup) -> None:
    setup.scan(1)
    setup.receipt(ReceiptVerdict.ACCEPTED, NONCE)
    assert setup.scans == []
    setup.scan(1, force=True)
    assert setup.published.reports[-1].answers == NONCE


def test_a_challenge_starts_a_scan_at_once(setup: Setup) -> None:
    setup.scan(1)
    setup.receipt(ReceiptVerdict.ACCEPTED)
    setup.receipt(ReceiptVerdict.RESEND_FULL, NONCE)
    sent = len(setup.published.reports)
    setup.reporter.send_due()
    assert setup.scans == [NONCE]
    assert len(setup.published.reports) == sent  # an earlier scan is no answer
    setup.scan(1, force=True)
    assert setup.published.reports[-1].answers == NONCE


def test_a_flood_of_challenges_starts_one_scan_per_interval(setup: Setup) -> None:
    setup.scan(1)
    setup.receipt(ReceiptVerdict.ACCEPTED)
    for number in range(20):
        setup.receipt(ReceiptVerdict.RESEND_FULL, f"{number:032x}")
        setup.reporter.send_due()
    assert len(setup.scans) == 1
    setup.clock.at += CHALLENGE_SECONDS
    setup.reporter.send_due()
    assert setup.scans[1:] == [f"{19:032x}"]
