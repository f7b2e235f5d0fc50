"""Audit lines and the state of a device as people see them."""

from typing import Any

import pytest

from controller.cli.devices.timeline import TimelineEntry, timeline
from controller.cli.devices.view import print_device
from controller.domain.audit_kinds import AuditKind


def _entry(kind: str, actor: str = "cordon", *, alert: bool = False, **detail: Any) -> dict[str, Any]:
    return {
        "id": "1-1",
        "at": "2026-11-23T10:00:00.123Z",
        "kind": kind,
        "text": f"The sentence of {kind}.",
        "device_id": "edge-1",
        "actor": actor,
        "case_id": "c1",
        "alert": alert,
        "detail": detail,
    }


def _one(entry: dict[str, Any]) -> TimelineEntry:
    (line,) = timeline([entry])
    return line


@pytest.mark.parametrize(
    ("entry", "text", "more"),
    [
        (_entry(AuditKind.REPORT_FIRST_ACCEPTED, "edge-1", agent="1.0"), "first report arrived", "agent 1.0"),
        (
            _entry(AuditKind.REPORT_POSTURE_CHANGED, "edge-1", seq=4, worse={"p/telnet": "fail"}, better=["p/x"]),
            "report 4: p/telnet fail; satisfied again: p/x",
            "",
        ),
        (_entry(AuditKind.CONTAINMENT_DECIDED, level="restricted", reason="fails p/t", until=None),
         "restricted: fails p/t", ""),
        (
            _entry(AuditKind.CONTAINMENT_DECIDED, "operator:bob", level="isolated", reason="odd",
                   until="2026-11-23T12:00:00.000Z"),
            "isolated: odd",
            "by operator:bob, until 2026-11-23T12:00:00.000Z",
        ),
        (_entry(AuditKind.CONTAINMENT_ESCALATED, level="isolated", causes=["p/d"], until="T"),
         "escalated to isolated: p/d", "until T"),
        (
            _entry(AuditKind.CONTAINMENT_PROVEN, level="restricted", seconds=0.0607, steps=[]),
            "restricted, read back at the broker",
            "60.7 ms from the report to the cut",
        ),
        (_entry(AuditKind.CONTAINMENT_FAILED, what="RestrictClient", trouble="no answer"),
         "not proven yet (RestrictClient): no answer", "will be retried"),
        (_entry(AuditKind.CONTAINMENT_STEPPED_DOWN, "operator:bob", reason="ok"),
         "stepped down to restricted: ok", "by operator:bob"),
        (_entry(AuditKind.CONTAINMENT_RELEASE_DECIDED, "policy", reason="a fresh report passes", contained_seconds=2.5),
         "released: a fresh report passes", "by policy, contained for 2.50 s"),
        (_entry(AuditKind.CONTAINMENT_RELEASE_PROVEN, steps=[]), "free again, read back at the broker", ""),
        (_entry(AuditKind.BROKER_DRIFT_FOUND, what="the ban is missing"), "the broker differed: the ban is missing",
         "is being repaired"),
        (_entry(AuditKind.DEVICE_STALE, after_seconds=300.0), "stale: no message for 300.00 s", ""),
        (_entry(AuditKind.COMMAND_ISSUED, "policy", action="service.disable", params={"name": "telnetd"}, rule="p/t",
                command_id="c"), "command service.disable name=telnetd", "repairs p/t, c"),
        (_entry(AuditKind.COMMAND_SUCCEEDED, "edge-1", action="rescan", reason="", result={"was": "a", "is": "b"}),
         "command succeeded: rescan", "was: a, is: b"),
        (_entry(AuditKind.COMMAND_FAILED, "edge-1", action="rescan", reason="no"), "command failed: rescan (no)", ""),
        (_entry("something.newer", depth=3, nothing=None), "The sentence of something.newer.", "depth 3"),
        (_entry(AuditKind.DEVICE_EVENT_REPORTED, "edge-1", event_kind="login_failed", summary="root"),
         "The sentence of device.event_reported.", "event_kind login_failed, summary root"),
    ],
)  # fmt: skip
def test_each_kind_is_described(entry: dict[str, Any], text: str, more: str) -> None:
    line = _one(entry)
    assert (line.text, line.more) == (text, more)
    assert (line.day, line.clock) == ("2026-11-23", "10:00:00.123")


def test_text_of_a_device_is_escaped() -> None:
    line = _one(_entry(AuditKind.DEVICE_EVENT_REPORTED, "edge-1", event_kind="x\x1b", summary="\x1b[2J"))
    assert "\x1b" not in line.text + line.more


def test_equal_calls_to_several_nodes_are_one_line() -> None:
    path = "/authorization/sources/built_in_database/rules/clients/edge-1"
    steps = [
        {"what": "read rules", "call": f"GET {path}", "node": "http://n1:1", "seconds": 0.0016,
         "answer": f"http://n1:1: GET {path}: not there (404)"},
        {"what": "read rules", "call": f"GET {path}", "node": "http://n2:1", "seconds": 0.002,
         "answer": f"http://n2:1: GET {path}: not there (404)"},
        {"what": "rules read back", "call": "", "node": "http://n1:1", "answer": "as wanted", "seconds": 0.0},
    ]  # fmt: skip
    _, read, back = timeline([_entry(AuditKind.CONTAINMENT_RELEASE_PROVEN, steps=steps)])
    assert read.text.split() == ["read", "rules", "GET", ".../rules/clients/edge-1", "->", "not", "there", "(404)"]
    assert read.more == "[n1:1 1.6 ms] [n2:1 2.0 ms]"
    assert (back.text.split(), back.more, back.indent) == (["rules", "read", "back", "as", "wanted"], "[n1:1]", 1)


def test_the_seconds_of_an_operators_containment_count_from_the_decision() -> None:
    lines = list(
        timeline(
            [
                _entry(AuditKind.CONTAINMENT_DECIDED, "operator:bob", level="isolated", reason="odd"),
                _entry(AuditKind.CONTAINMENT_PROVEN, level="isolated", seconds=0.01, steps=[]),
            ]
        )
    )
    assert lines[1].more == "10.0 ms from the decision to the cut"


def _device(**changes: Any) -> dict[str, Any]:
    case = {
        "case_id": "c1", "level": "restricted", "proven": False, "proven_level": "none", "proven_at": None,
        "trouble": "no node answered", "causes": ["p/telnet"], "by": "policy", "reason": "fails p/telnet",
        "opened_at": "2026-11-23T10:00:00.000Z", "evidence_at": "2026-11-23T10:00:00.000Z", "hold_until": None,
        "until_released": False, "until_certificate": False, "isolate_until": None,
    }  # fmt: skip
    return {
        "device_id": "edge-1", "device_class": "lab", "tags": ["a"], "online": True, "stale": True,
        "last_seen": "2026-11-23T10:00:00.000Z", "level": "restricted", "case": {**case, **changes}, "satisfied": 3,
        "not_satisfied": {"fail": 1}, "failing": ["p/telnet"], "open_commands": 1, "pending": None,
        "first_seen": "2026-11-20T10:00:00.000Z", "boot_id": "b", "agent": "1.0", "report": None,
        "signs": False, "gaps": 0,
        "findings": [{"rule": "p/telnet", "result": "fail", "since": "2026-11-23T10:00:00.000Z", "streak": 2,
                      "detail": "d\x1b", "title": "No telnet", "severity": "high", "why": "w", "fix": "Stop it.",
                      "remedies": 1, "mode": "shadow",
                      "waived": {"expires_at": "2026-12-01", "owner": "ada", "reason": "old gate"}}],
        "commands": [{"command_id": "c", "action": "service.disable", "params": {"name": "t"}, "state": "scheduled",
                      "by": "policy", "rule": "p/telnet", "dry_run": False, "issued_at": "", "expires_at": ""}],
        "recent_commands": [],
        "timeline": [_entry(AuditKind.CONTAINMENT_DECIDED, level="restricted", reason="fails p/telnet")],
    }  # fmt: skip


def test_a_device_is_printed_with_reasons_findings_commands_and_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    print_device(_device())
    text = capsys.readouterr().out
    for part in (
        "edge-1  restricted",
        "why        fails p/telnet",
        "proven     not yet: no node answered",
        "until      a report passes",
        "seen       stale: ",
        "report     none yet",
        "rules      3 satisfied, 1 fail",
        "labels     class lab, a",
        "fail    high     p/telnet  No telnet",
        "2 in a row: d\\x1b",
        "waived until 2026-12-01 by ada: old gate",
        "shadow mode: no response",
        "Stop it.",
        "scheduled service.disable name=t  by policy, c",
        "10:00:00.123 • restricted: fails p/telnet",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"isolate_until": "2026-11-23T12:00:00.000Z"}, "2026-11-23T12:00:00.000Z, then restricted"),
        ({"until_certificate": True}, "it has a new certificate"),
        ({"until_released": True}, "an operator releases it"),
        ({"hold_until": "2026-11-23T12:00:00.000Z"}, "a report passes after 2026-11-23T12:00:00.000Z"),
    ],
)
def test_the_end_of_a_containment_is_printed(
    capsys: pytest.CaptureFixture[str], changes: dict[str, Any], end: str
) -> None:
    print_device(_device(**changes))
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.startswith("  until")]
    assert end in line
