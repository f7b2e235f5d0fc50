"""What the agent leaves out of a report, and when it may."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.service.ingest.delta import merge
from device_agent.domain.delta import base_of, delta_of
from device_agent.domain.report import ReportSender, full_report
from device_agent.domain.report_limits import findings_of, fit
from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from schemas.events import ReportReceipt
from schemas.posture import REPORT, DeltaReport

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def _full(seq: int, **sections: dict[str, Any]) -> bytes:
    return full_report(ReportSender("edge-1", "boot", "1.0"), seq, NOW, fit(findings_of(sections)))


def _os(kernel: str) -> dict[str, Any]:
    return {"state": "ok", "id": "debian", "kernel": kernel}


def _sockets(*ports: int) -> dict[str, Any]:
    listening = [{"proto": "tcp", "address": "::", "port": port, "process": "p"} for port in ports]
    return {"state": "ok", "listening": listening}


def test_only_what_changed_travels_and_the_whole_comes_out_again() -> None:
    first = _full(1, os=_os("6.1"), sockets=_sockets(*range(1, 200)))
    second = _full(2, os=_os("6.2"), sockets=_sockets(*range(1, 200)))
    raw = delta_of(second, base_of(first))
    assert raw is not None
    delta = REPORT.validate_json(raw)
    assert isinstance(delta, DeltaReport)
    assert delta.sections.model_fields_set == {"os"}
    assert delta.base == json.loads(first)["digest"]
    assert len(raw) < 1000 < len(second)
    merged = merge(first, raw, delta)
    assert merged is not None
    assert json.loads(merged) == json.loads(second)


def test_a_change_beyond_the_cut_travels_as_a_digest_alone() -> None:
    first, second = _full(1, sockets=_sockets(*range(1, 400))), _full(2, sockets=_sockets(*range(1, 399), 9000))
    raw = delta_of(second, base_of(first))
    assert raw is not None
    assert json.loads(raw)["sections"] == {}
    assert json.loads(raw)["digest"] == json.loads(second)["digest"]


def test_where_a_delta_would_say_nothing_or_save_nothing() -> None:
    first = _full(1, os=_os("6.1"))
    assert delta_of(_full(2, os=_os("6.1")), base_of(first)) is None
    assert delta_of(_full(2, os=_os("6.2")), base_of(first)) is None
    assert delta_of(_full(2, sockets=_sockets(1)), base_of(first)) is None


@pytest.mark.parametrize("is_delta", [True, False])
def test_a_delta_that_cannot_be_used_is_given_up_when_all_is_asked_for(is_delta: bool) -> None:
    first = _full(1, os=_os("6.1"), sockets=_sockets(*range(1, 200)))
    second = _full(2, os=_os("6.2"), sockets=_sockets(*range(1, 200)))
    raw = delta_of(second, base_of(first)) if is_delta else second
    assert raw is not None
    owed = PendingReport(2, json.loads(second)["digest"], raw.decode())
    assert owed.is_delta is is_delta
    after, settled = ReportOutbox().owe(owed).settle(ReportReceipt.model_validate({"seq": 2, "verdict": "resend_full"}))
    assert settled.resend
    assert len(after.owed) == (0 if is_delta else 1)
