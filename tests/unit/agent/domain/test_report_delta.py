"""Which sections a delta report leaves out, and when the agent sends one."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.service.ingest.delta import merge
from device_agent.domain.report import ReportSender, delta_base, full_report, make_delta
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from schemas.events import ReportReceipt
from schemas.posture import REPORT, DeltaReport

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def _full(seq: int, **sections: dict[str, Any]) -> bytes:
    return full_report(ReportSender("edge-1", "boot", "1.0"), seq, NOW, truncate_to_size(normalise_findings(sections)))


def _os(kernel: str) -> dict[str, Any]:
    return {"state": "ok", "id": "debian", "kernel": kernel}


def _sockets(*ports: int) -> dict[str, Any]:
    listening = [{"proto": "tcp", "address": "::", "port": port, "process": "p"} for port in ports]
    return {"state": "ok", "listening": listening}


def test_a_delta_has_the_changed_sections_and_merges_to_the_full_report() -> None:
    first = _full(1, os=_os("6.1"), sockets=_sockets(*range(1, 200)))
    second = _full(2, os=_os("6.2"), sockets=_sockets(*range(1, 200)))
    raw = make_delta(second, delta_base(first))
    assert raw is not None
    delta = REPORT.validate_json(raw)
    assert isinstance(delta, DeltaReport)
    assert delta.sections.model_fields_set == {"os"}
    assert delta.base == json.loads(first)["digest"]
    assert len(raw) < 1000 < len(second)
    merged = merge(first, raw, delta)
    assert merged is not None
    assert json.loads(merged) == json.loads(second)


def test_a_change_in_removed_entries_changes_only_the_digest() -> None:
    first, second = _full(1, sockets=_sockets(*range(1, 400))), _full(2, sockets=_sockets(*range(1, 399), 9000))
    raw = make_delta(second, delta_base(first))
    assert raw is not None
    assert json.loads(raw)["sections"] == {}
    assert json.loads(raw)["digest"] == json.loads(second)["digest"]


def test_no_delta_where_it_would_carry_or_save_nothing() -> None:
    first = _full(1, os=_os("6.1"))
    assert make_delta(_full(2, os=_os("6.1")), delta_base(first)) is None
    assert make_delta(_full(2, os=_os("6.2")), delta_base(first)) is None
    assert make_delta(_full(2, sockets=_sockets(1)), delta_base(first)) is None


@pytest.mark.parametrize("is_delta", [True, False])
def test_a_request_for_a_full_report_removes_a_delta(is_delta: bool) -> None:
    first = _full(1, os=_os("6.1"), sockets=_sockets(*range(1, 200)))
    second = _full(2, os=_os("6.2"), sockets=_sockets(*range(1, 200)))
    raw = make_delta(second, delta_base(first)) if is_delta else second
    assert raw is not None
    report = PendingReport(2, json.loads(second)["digest"], raw.decode())
    assert report.is_delta is is_delta
    receipt = ReportReceipt.model_validate({"seq": 2, "verdict": "resend_full"})
    after, outcome = ReportOutbox().add(report).apply_receipt(receipt)
    assert outcome.full_report_requested
    assert len(after.reports) == (0 if is_delta else 1)
