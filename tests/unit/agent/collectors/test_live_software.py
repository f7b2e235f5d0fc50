"""The software sections of this machine: the same twice, small enough to send, honest without root."""

from datetime import UTC, datetime

from device_agent.collectors.registry import COLLECTORS
from device_agent.collectors.scan import Scanner
from device_agent.domain.report import ReportSender, full_report
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.host.system import System
from schemas.base import MAX_POSTURE_BYTES
from tests.support.unprivileged import unprivileged

MINE = {name: COLLECTORS[name] for name in ("updates", "sources", "openssl", "keys", "certificates")}


def test_an_unchanged_machine_keeps_its_digest_and_fits_a_report() -> None:
    first, second = (normalise_findings(Scanner(System(), MINE).scan()) for _ in range(2))
    # A program that starts or ends in between with an old library may change this one.
    for name in set(MINE) - {"openssl"}:
        assert first.sections[name] == second.sections[name]
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert len(full_report(ReportSender("edge-1", "", ""), 1, now, truncate_to_size(first))) < MAX_POSTURE_BYTES
    for section in first.sections.values():
        assert section["state"] == "ok" or section["reason"]


def test_an_ordinary_user_gets_the_same_facts_or_reasons() -> None:
    whole = normalise_findings({"sources": MINE["sources"](System(is_root_user=True))}).sections["sources"]
    with unprivileged():
        section = normalise_findings({"sources": MINE["sources"](System(is_root_user=False))}).sections["sources"]
    assert section == whole or section["state"] == "unknown" or section["problems"]
