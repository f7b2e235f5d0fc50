"""The agent's side of a nonce: the next scan answers it, a scan from before does not, and a flood is bounded."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.domain.report import ReportSender
from device_agent.domain.report_limits import findings_of, fit
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import CHALLENGE_SECONDS, Reporter
from device_agent.settings import ReportSettings
from schemas.events import ReceiptVerdict, ReportReceipt
from schemas.posture import REPORT, FullReport
from schemas.topics import UpChannel
from tests.support.clocks import ManualAgentClock

NONCE = "ab" * 16


@dataclass
class Told:
    """What was published."""

    reports: list[FullReport] = field(default_factory=list)

    def __call__(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        if channel is UpChannel.POSTURE:
            report = REPORT.validate_json(payload)
            if isinstance(report, FullReport):
                self.reports.append(report)
        return True


@dataclass
class Desk:
    reporter: Reporter
    told: Told
    clock: ManualAgentClock
    asked: list[str] = field(default_factory=list)

    def receipt(self, verdict: ReceiptVerdict, nonce: str | None = None) -> None:
        last = self.told.reports[-1]
        digest = last.digest if verdict is ReceiptVerdict.ACCEPTED else None
        self.reporter.receipt(ReportReceipt(seq=last.seq, verdict=verdict, digest=digest, nonce=nonce).to_json())

    def scan(self, port: int, *, force: bool = False) -> None:
        found = fit(findings_of({"sockets": {"state": "ok", "listening": [], "note": port}}))
        self.reporter.found(replace(found, answers=self.reporter.nonce), force=force)
        self.reporter.tick()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    clock, told = ManualAgentClock(), Told()
    store, asked = ReportStore(tmp_path, first_seq=1), list[str]()
    sender = ReportSender("edge-1", "boot", "1.0")
    reporter = Reporter(sender, ReportSettings(), store, told, clock, lambda: asked.append(reporter.nonce))
    made = Desk(reporter, told, clock, asked)
    reporter.online()
    return made


def test_without_a_nonce_the_agent_says_that_it_has_none(desk: Desk) -> None:
    desk.scan(1)
    assert desk.told.reports[-1].answers == ""


def test_the_next_scan_answers(desk: Desk) -> None:
    desk.scan(1)
    desk.receipt(ReceiptVerdict.ACCEPTED, NONCE)
    assert desk.asked == []
    desk.scan(1, force=True)
    assert desk.told.reports[-1].answers == NONCE


def test_asked_for_a_fresh_report_it_looks_again_at_once(desk: Desk) -> None:
    desk.scan(1)
    desk.receipt(ReceiptVerdict.ACCEPTED)
    desk.receipt(ReceiptVerdict.RESEND_FULL, NONCE)
    sent = len(desk.told.reports)
    desk.reporter.tick()
    assert desk.asked == [NONCE]
    assert len(desk.told.reports) == sent  # what it knew before is no answer
    desk.scan(1, force=True)
    assert desk.told.reports[-1].answers == NONCE


def test_a_flood_of_questions_costs_a_scan_each_few_seconds(desk: Desk) -> None:
    desk.scan(1)
    desk.receipt(ReceiptVerdict.ACCEPTED)
    for number in range(20):
        desk.receipt(ReceiptVerdict.RESEND_FULL, f"{number:032x}")
        desk.reporter.tick()
    assert len(desk.asked) == 1
    desk.clock.at += CHALLENGE_SECONDS
    desk.reporter.tick()
    assert desk.asked[1:] == [f"{19:032x}"]
