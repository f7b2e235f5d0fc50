"""Reports: sanitised, digested as a whole, truncated to the limits of the protocol."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from device_agent.collectors.base import SectionBuilder
from device_agent.domain.report import MAX_HEADER_BYTES, ReportSender, all_sections_unavailable, full_report, heartbeat
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from schemas.base import MAX_GAPS, MAX_POSTURE_BYTES
from schemas.posture import REPORT, FullReport, Heartbeat, ReportSections, digest_of
from schemas.sections.system import MAX_SOCKETS, MAX_UNITS, ServicesSection

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SENDER = ReportSender("edge-1", "boot", "1.0")


def _sockets(count: int, process: str = "p") -> dict[str, Any]:
    listening = [
        {"proto": "tcp", "address": f"10.0.{n // 250}.{n % 250}", "port": n % 60000 + 1, "process": process}
        for n in range(count)
    ]
    return {"sockets": {"state": "ok", "listening": listening}}


def test_reports_are_valid_for_the_schema() -> None:
    findings = normalise_findings({"os": {"state": "ok", "id": "debian", "kernel": "6.1"}, **_sockets(2)})
    report = REPORT.validate_json(full_report(SENDER, 7, NOW, truncate_to_size(findings)))
    assert (report.kind, report.seq, report.digest) == ("full", 7, findings.digest)
    beat = REPORT.validate_json(heartbeat(SENDER, 8, NOW, findings.digest))
    assert (beat.kind, beat.seq) == ("heartbeat", 8)


def test_long_lists_are_truncated_and_counted_and_the_digest_covers_the_removed_entries() -> None:
    findings, more = normalise_findings(_sockets(MAX_SOCKETS + 10)), normalise_findings(_sockets(MAX_SOCKETS + 11))
    section = findings.sections["sockets"]
    assert (len(section["listening"]), section["truncated"]) == (MAX_SOCKETS, 10)
    assert findings.digest != more.digest
    assert findings.sections["sockets"]["listening"] == more.sections["sockets"]["listening"]


def test_the_digest_does_not_depend_on_the_order_of_sections() -> None:
    first, second = {"state": "unknown", "reason": "a"}, {"state": "unknown", "reason": "b"}
    findings = normalise_findings({"os": first, "firewall": second})
    assert findings.digest == normalise_findings({"firewall": second, "os": first}).digest


def test_control_characters_and_long_texts_are_sanitised() -> None:
    findings = normalise_findings({"os": {"state": "ok", "id": "debian", "kernel": "a\x1b[31mb\n" + "k" * 5000}})
    assert findings.sections["os"]["state"] == "ok"
    assert findings.sections["os"]["kernel"].startswith("a [31mb k")
    REPORT.validate_json(full_report(SENDER, 1, NOW, truncate_to_size(findings)))


def test_an_invalid_section_becomes_unknown_and_the_others_stay() -> None:
    findings = normalise_findings({"os": {"state": "ok", "id": "two words", "kernel": "6"}, **_sockets(1)})
    assert findings.sections["os"]["state"] == "unknown"
    assert "os.ok.id" in findings.sections["os"]["reason"]
    assert findings.sections["sockets"]["state"] == "ok"


def test_a_report_that_is_too_large_is_truncated_further() -> None:
    payload = full_report(SENDER, 1, NOW, truncate_to_size(normalise_findings(_sockets(400, "x" * 1000))))
    assert len(payload) <= MAX_POSTURE_BYTES
    section = json.loads(payload)["sections"]["sockets"]
    assert len(section["listening"]) + section["truncated"] == 400
    with pytest.raises(ValueError, match="without its lists"):
        truncate_to_size(normalise_findings({"os": {"state": "unknown", "reason": "r"}}), max_bytes=5)


def test_reports_have_the_bytes_that_the_models_write() -> None:
    content = truncate_to_size(normalise_findings({"os": {"state": "ok", "id": "debian", "kernel": "6.1 \u00e4"}}))
    sections = ReportSections.model_validate_json(content.sections)
    common: dict[str, Any] = {"v": 1, "device_id": "edge-1", "seq": 7, "sent_at": NOW, "digest": content.digest}
    full = FullReport(kind="full", boot_id="boot", agent="1.0", answers="", sections=sections, **common)
    assert full_report(SENDER, 7, NOW, content) == full.model_dump_json(exclude_none=True).encode()
    beat = Heartbeat(kind="heartbeat", **common)
    assert heartbeat(SENDER, 7, NOW, content.digest) == beat.model_dump_json().encode()


def test_the_longest_header_fits_its_limit() -> None:
    longest = ReportSender("d" * 64, "\u00e4" * 64, "a" * 64)
    content = truncate_to_size(normalise_findings({}))
    assert len(full_report(longest, 2**53 - 1, NOW, content)) - len(content.sections) <= MAX_HEADER_BYTES


def test_after_a_failed_scan_every_section_is_unknown() -> None:
    content = all_sections_unavailable(("os", "disk"), "it \x1b broke " + "x" * 2000)
    report = REPORT.validate_json(full_report(SENDER, 1, NOW, content))
    assert isinstance(report, FullReport)
    assert report.sections.disk == report.sections.os
    assert content.digest == digest_of(json.loads(content.sections))


def test_gaps_and_incomplete_lists_are_bounded() -> None:
    section = SectionBuilder(units=[{"name": f"unit-{n}", "enabled": True, "active": True} for n in range(2000)])
    for number in range(MAX_GAPS):
        section.gap("units", reason="x" * 500, source="y" * 500)
        section.gap("units", reason=f"{number}")
    section.gap("init", reason="why")
    collected = section.build()
    assert len(collected["gaps"]) == MAX_GAPS
    # Every incomplete field keeps a gap, whatever the others have.
    assert [gap["fact"] for gap in collected["gaps"][:2]] == ["units", "init"]
    findings = normalise_findings({"services": collected})
    sent = findings.sections["services"]
    assert (sent["state"], len(sent["partial"]["units"]), sent.get("truncated", 0)) == ("ok", MAX_UNITS, 0)
    content = truncate_to_size(findings, 3000)
    shrunk = ReportSections.model_validate_json(content.sections).services
    assert isinstance(shrunk, ServicesSection)
    assert {gap.fact for gap in shrunk.gaps} == {"units", "init"}
