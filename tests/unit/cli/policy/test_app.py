"""`cordon policy`: files are checked and results explained without a controller."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run_safely
from controller.cli.policy.explanation import print_event_state, response_text
from tests.support.api import report_message

POLICY = """\
policy: tests
version: 1
title: For tests
rules:
  - id: no-telnet
    title: Telnet is not offered
    why: It carries passwords in clear text.
    fix: Stop it.
    check: '!listening_ports.exists(p, p == 23)'
    severity: high
    on_fail: {contain: restricted, remediate: {action: service.disable, params: {name: telnetd}}}
  - id: firewall
    title: A firewall filters
    check: firewall_active
    severity: medium
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy of two rules."""
    path = tmp_path / "tests.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report of a device that offers telnet and does not report its firewall."""
    path = tmp_path / "report.json"
    path.write_bytes(report_message("edge-1", (22, 23), 1).payload)
    return path


def test_valid_policies_pass_the_check(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["policy", "check", str(policy)]) == 0
    assert capsys.readouterr().out.startswith("ok: 1 policies, 2 rules, version ")
    assert run_safely(["policy", "check", str(policy.parent), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_the_check_shows_every_mistake_with_its_line(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY.replace("listening_ports", "listening_prots").replace("medium", "mild"))
    assert run_safely(["policy", "check", str(policy)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{policy}:9:" in output.err
    assert "listening_ports" in output.err
    assert f"{policy}:15:" in output.err
    assert run_safely(["policy", "check", str(policy), "-o", "json"]) == 1
    checked = json.loads(capsys.readouterr().out)
    assert [problem["line"] for problem in checked["problems"]] == [9, 15]


def test_a_report_in_a_file_is_explained(policy: Path, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["policy", "explain", "--report", str(report), "--policy", str(policy)]) == 0
    text = capsys.readouterr().out
    for part in (
        "edge-1: 2 rules by policies",
        "1 fail, 1 unknown",
        "fail          tests/no-telnet  Telnet is not offered  [high]",
        "listening_ports = 22, 23",
        "fix: Stop it.",
        "response: restricted + service.disable name=telnetd",
        "firewall_active = ?  (firewall: not reported)",
    ):
        assert part in text


def test_a_report_on_standard_input_is_explained_by_the_starter_pack(
    report: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(report.read_bytes())))
    assert run_safely(["policy", "explain", "--report", "-", "-o", "json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    results = {rule["rule"]: rule["result"] for rule in explained["items"]}
    assert results["starter/no-telnet"] == "fail"
    assert results["starter/firewall-active"] == "unknown"
    assert explained["device_id"] == "edge-1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "full"}', b"\xff" * 10, b" " * (1024 * 1024 + 1)])
def test_an_invalid_report_is_a_usage_error(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    assert run_safely(["policy", "explain", "--report", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["edge-1", "--report", "x"], ["edge-1", "--policy", "x"]])
def test_explain_takes_a_device_or_a_report(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["policy", "explain", *argv]) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "finding"),
        ({"contain": "isolated", "isolate_for": "1h"}, "isolated for 1h"),
        ({"contain": "restricted", "consecutive": 2, "grace": "10m"}, "restricted after 2 reports in a row and 10m"),
        ({"remediate": {"action": "rescan", "params": {}}}, "rescan"),
        (
            {"contain": "restricted", "passing": 3, "cool_down": "5m"},
            "restricted until 3 that pass in a row and 5m of passing",
        ),
        (
            {"contain": "restricted", "repeat": {"within": "24h", "factor": 2.0, "most": "24h"}},
            "restricted, 2 times as long each time within 24h",
        ),
    ],
)
def test_a_response_is_described(changes: dict[str, Any], text: str) -> None:
    base = {
        "contain": "none", "isolate_for": None, "remediate": None, "consecutive": 1, "grace": "0s",
        "passing": 1, "cool_down": "0s", "repeat": None,
    }  # fmt: skip
    assert response_text({"mode": "enforce", "response": {**base, **changes}}) == text
    assert response_text({"mode": "shadow", "response": {**base, **changes}}) == f"shadow: {text}"


def test_a_report_is_judged_by_a_policy_file(
    policy: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_safely(["policy", "test", str(policy), str(report)]) == 1
    assert "fail          tests/no-telnet" in capsys.readouterr().out
    passing = tmp_path / "passing.json"
    passing.write_bytes(report_message("edge-1", (22,), 1).payload)
    assert run_safely(["policy", "test", str(policy), str(passing)]) == 0
    assert run_safely(["policy", "test", str(policy), str(passing), "--strict"]) == 1
    capsys.readouterr()
    assert run_safely(["policy", "test", str(policy.parent), str(report), "-o", "json"]) == 1
    judged = json.loads(capsys.readouterr().out)
    assert (judged["ok"], judged["counts"]) == (False, {"fail": 1, "unknown": 1})


def test_a_rule_that_cannot_be_evaluated_fails_the_test(policy: Path, report: Path) -> None:
    policy.write_text(POLICY.replace("'!listening_ports.exists(p, p == 23)'", "listening_ports[40] == 1"))
    assert run_safely(["policy", "test", str(policy), str(report)]) == 1


def test_class_and_tags_select_the_policies(policy: Path, report: Path) -> None:
    policy.write_text(POLICY.replace("rules:", """applies_to: 'device.class == "lab" && "b" in device.tags'\nrules:"""))
    lab = ["--class", "lab", "--tag", "a", "--tag", "b"]
    assert run_safely(["policy", "test", str(policy), str(report)]) == 0
    assert run_safely(["policy", "test", str(policy), str(report), *lab]) == 1


def test_a_shipped_pack_is_found_by_its_name(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(["policy", "test", "starter", str(report)]) == 1
    assert "starter/no-telnet" in capsys.readouterr().out
    assert run_safely(["policy", "test", "nothing", str(report)]) == 2
    assert "there are" in capsys.readouterr().err
    assert run_safely(["policy", "test", "no-such.yaml", str(report)]) == 1
    assert "no-such.yaml" in capsys.readouterr().err


EVENTS = """\
events:
  - id: attack
    title: No attack
    why: It hurts.
    fix: Look.
    when: 'event.rank >= 4'
    severity: critical
    on_event: {contain: restricted, after: {count: 2}, remediate: {action: rescan}}
  - {id: worm, title: No worm, when: 'event.signature == "worm"', severity: low}
"""


@pytest.fixture
def event(tmp_path: Path) -> Path:
    """A critical event without a signature."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps({"device_id": "d", "kind": "x", "severity": "critical", "at": "2026-01-01T00:00:00Z"}))
    return path


def test_an_event_is_judged_by_a_policy_file(policy: Path, event: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY + EVENTS)
    assert run_safely(["policy", "test", str(policy), "--event", str(event)]) == 1
    text = capsys.readouterr().out
    assert "breaks 1 of 2 rules about events" in text
    assert "response: restricted for 1h + rescan after 2 within 10m" in text
    assert "because: the event has no event.signature" in text
    event.write_text(event.read_text().replace("critical", "low"))
    assert run_safely(["policy", "test", str(policy), "--event", str(event), "-o", "json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert (judged["ok"], [rule["result"] for rule in judged["items"]]) == (True, ["pass", "unknown"])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not an event"), ('{"kind": "x"}', "not an event: device_id"), ("x" * 70_000, "larger")],
)
def test_an_invalid_event_is_a_usage_error(
    policy: Path, event: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(POLICY + EVENTS)
    event.write_text(content)
    assert run_safely(["policy", "test", str(policy), "--event", str(event)]) == 2
    assert message in capsys.readouterr().err


def test_an_event_is_judged_only_by_rules_about_events(
    policy: Path, event: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_safely(["policy", "test", str(policy), "--event", str(event)]) == 2
    assert "about events" in capsys.readouterr().err
    assert run_safely(["policy", "test", str(policy)]) == 2
    assert run_safely(["policy", "test", str(policy), str(report), "--event", str(event)]) == 2


def test_the_state_of_rules_about_events_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    response = {"contain": "none", "remediate": None, "count": 1, "within": "10m", "for": "1h"}
    rule = {
        "rule": "p/a",
        "title": "A",
        "severity": "low",
        "when": "true",
        "mode": "enforce",
        "response": response,
        "until": "12:00",
    }
    print_event_state([{**rule, "result": "fail", "detail": "1 of x"}, {**rule, "result": "pass", "detail": ""}])
    text = capsys.readouterr().out
    assert "2 rules about events, nothing seen for 1 of them" in text
    assert "until 12:00: finding for 1h" in text
    print_event_state([])
    assert capsys.readouterr().out == ""
