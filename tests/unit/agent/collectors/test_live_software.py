"""The software sections of this machine: stable between scans, small enough to send, with reasons without root."""

from datetime import UTC, datetime

from device_agent.collectors.registry import COLLECTORS
from device_agent.collectors.scan import Scanner
from device_agent.domain.report import ReportSender, full_report
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.host.system import System
from schemas.base import MAX_POSTURE_BYTES
from tests.support.root_folder import gap_texts
from tests.support.unprivileged import unprivileged

COLLECTED = {name: COLLECTORS[name] for name in ("updates", "sources", "openssl", "keys", "certificates")}


def test_an_unchanged_machine_keeps_its_digest_and_fits_a_report() -> None:
    first, second = (normalise_findings(Scanner(System(), COLLECTED).scan()) for _ in range(2))
    # A process with an old library may start or end between the scans.
    for name in set(COLLECTED) - {"openssl"}:
        assert first.sections[name] == second.sections[name]
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert len(full_report(ReportSender("edge-1", "", ""), 1, now, truncate_to_size(first))) < MAX_POSTURE_BYTES
    for section in first.sections.values():
        assert section["state"] == "ok" or section["reason"]


def test_an_unprivileged_user_gets_the_same_facts_or_reasons() -> None:
    as_root = normalise_findings({"sources": COLLECTED["sources"](System(is_root_user=True))}).sections["sources"]
    with unprivileged():
        section = normalise_findings({"sources": COLLECTED["sources"](System(is_root_user=False))}).sections["sources"]
    assert section == as_root or section["state"] == "unknown" or gap_texts(section)
