"""Reports: cleaned, digested over everything, cut to the wire's limits."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from device_agent.domain.report import MAX_HEAD_BYTES, ReportSender, full_report, heartbeat, nothing_found
from device_agent.domain.report_limits import findings_of, fit
from schemas.base import MAX_POSTURE_BYTES
from schemas.posture import REPORT, FullReport, Heartbeat, ReportSections, digest_of
from schemas.sections.system import MAX_SOCKETS

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SENDER = ReportSender("edge-1", "boot", "1.0")


def _sockets(count: int, process: str = "p") -> dict[str, Any]:
    listening = [
        {"proto": "tcp", "address": f"10.0.{n // 250}.{n % 250}", "port": n % 60000 + 1, "process": process}
        for n in range(count)
    ]
    return {"sockets": {"state": "ok", "listening": listening}}


def test_a_report_is_what_the_wire_takes() -> None:
    findings = findings_of({"os": {"state": "ok", "id": "debian", "kernel": "6.1"}, **_sockets(2)})
    report = REPORT.validate_json(full_report(SENDER, 7, NOW, fit(findings)))
    assert (report.kind, report.seq, report.digest) == ("full", 7, findings.digest)
    beat = REPORT.validate_json(heartbeat(SENDER, 8, NOW, findings.digest))
    assert (beat.kind, beat.seq) == ("heartbeat", 8)


def test_long_lists_are_cut_and_counted_and_the_digest_sees_what_was_cut() -> None:
    findings, more = findings_of(_sockets(MAX_SOCKETS + 10)), findings_of(_sockets(MAX_SOCKETS + 11))
    section = findings.sections["sockets"]
    assert (len(section["listening"]), section["truncated"]) == (MAX_SOCKETS, 10)
    assert findings.digest != more.digest
    assert findings.sections["sockets"]["listening"] == more.sections["sockets"]["listening"]


def test_the_digest_does_not_depend_on_the_order_of_sections() -> None:
    one, two = {"state": "unknown", "reason": "a"}, {"state": "unknown", "reason": "b"}
    assert findings_of({"os": one, "firewall": two}).digest == findings_of({"firewall": two, "os": one}).digest


def test_text_of_any_kind_becomes_fit_to_send() -> None:
    findings = findings_of({"os": {"state": "ok", "id": "debian", "kernel": "a\x1b[31mb\n" + "k" * 5000}})
    assert findings.sections["os"]["state"] == "ok"
    assert findings.sections["os"]["kernel"].startswith("a [31mb k")
    REPORT.validate_json(full_report(SENDER, 1, NOW, fit(findings)))


def test_a_section_that_the_wire_would_refuse_is_unknown_and_the_others_stay() -> None:
    findings = findings_of({"os": {"state": "ok", "id": "two words", "kernel": "6"}, **_sockets(1)})
    assert findings.sections["os"]["state"] == "unknown"
    assert "os.ok.id" in findings.sections["os"]["reason"]
    assert findings.sections["sockets"]["state"] == "ok"


def test_a_report_that_is_too_large_is_cut_further() -> None:
    payload = full_report(SENDER, 1, NOW, fit(findings_of(_sockets(400, "x" * 1000))))
    assert len(payload) <= MAX_POSTURE_BYTES
    section = json.loads(payload)["sections"]["sockets"]
    assert len(section["listening"]) + section["truncated"] == 400
    with pytest.raises(ValueError, match="without its lists"):
        fit(findings_of({"os": {"state": "unknown", "reason": "r"}}), limit=5)


def test_reports_are_written_as_the_models_write_them() -> None:
    found = fit(findings_of({"os": {"state": "ok", "id": "debian", "kernel": "6.1 \u00e4"}}))
    sections = ReportSections.model_validate_json(found.sections)
    common: dict[str, Any] = {"v": 1, "device_id": "edge-1", "seq": 7, "sent_at": NOW, "digest": found.digest}
    full = FullReport(kind="full", boot_id="boot", agent="1.0", answers="", sections=sections, **common)
    assert full_report(SENDER, 7, NOW, found) == full.model_dump_json(exclude_none=True).encode()
    beat = Heartbeat(kind="heartbeat", **common)
    assert heartbeat(SENDER, 7, NOW, found.digest) == beat.model_dump_json().encode()


def test_the_head_of_the_longest_report_fits_beside_its_sections() -> None:
    longest = ReportSender("d" * 64, "\u00e4" * 64, "a" * 64)
    found = fit(findings_of({}))
    assert len(full_report(longest, 2**53 - 1, NOW, found)) - len(found.sections) <= MAX_HEAD_BYTES


def test_a_scan_that_failed_leaves_every_section_unknown() -> None:
    found = nothing_found(("os", "disk"), "it \x1b broke " + "x" * 2000)
    report = REPORT.validate_json(full_report(SENDER, 1, NOW, found))
    assert isinstance(report, FullReport)
    assert report.sections.disk == report.sections.os
    assert found.digest == digest_of(json.loads(found.sections))
