"""Guards, approvals, waivers and previews on the command line, against the API on a real socket."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from controller.cli.app import run_safely
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.scopes import Scope
from controller.ports.store import ApiToken
from controller.service.containment.operator_actions import OperatorLimits
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer

FLEET: dict[str, tuple[int, ...]] = {f"edge-{number}": (23,) if number < 4 else () for number in range(1, 8)}
GUARDS = FleetGuards(BlastRadius(BlastRadiusLimits(1, 100.0, 600.0)), protection=ProtectionRules(frozenset({"edge-7"})))
POLICY = """
policy: p
version: 1
title: Tests
rules:
  - id: no-ssh
    title: Port 22 is closed
    check: '!listening_ports.exists(p, p == 22)'
    severity: high
    on_fail: {contain: restricted}
  - id: no-telnet
    title: Port 23 is closed
    check: '!listening_ports.exists(p, p == 23)'
    severity: high
    on_fail: {contain: isolated}
"""


class Operator:
    """Runs `cordon` with a token and returns its output."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], token: str = TOKEN) -> None:
        self._connection = ["--url", url, "--token", f"command:echo {token}"]
        self._capsys = capsys

    def __call__(self, *argv: str, status: int = 0) -> str:
        self._capsys.readouterr()
        code = run_safely([*argv, *self._connection])
        output = self._capsys.readouterr()
        assert code == status, output.out + output.err
        return output.out + output.err

    def json(self, *argv: str, status: int = 0) -> Any:
        """The JSON of a command."""
        self._capsys.readouterr()
        code = run_safely([*argv, *self._connection, "-o", "json"])
        output = self._capsys.readouterr()
        assert code == status, output.out + output.err
        return json.loads(output.out)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """Seven devices: three fail, of which one is contained and two are deferred; one is protected."""
    options: dict[str, Any] = {"guards": GUARDS, "by_hand": OperatorLimits(2, 3600.0, 7200.0)}
    options["tokens"] = (ApiToken("second", digest_of("cordon_second"), 0.0, (Scope.READ, Scope.CONTAIN)),)
    with ApiServer(tmp_path / "cordon.db", FLEET, **options) as server:
        yield server


@pytest.fixture
def cordon(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> Operator:
    """The first operator."""
    return Operator(api.url, capsys)


def _second(api: ApiServer, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(api.url, capsys, "cordon_second")


def test_deferred_containments_are_shown_approved_and_dismissed(cordon: Operator) -> None:
    text = cordon("guard", "status")
    assert "contained by policy in the last 10m: 1 of 1" in text
    assert "REACHED" in text
    assert "edge-2" in text
    assert [held["device_id"] for held in cordon.json("guard", "status")["items"]] == ["edge-2", "edge-3"]
    assert "waits" in cordon("devices", "show", "edge-2")
    assert "restricted" in cordon("guard", "approve", "edge-2", "--reason", "sure")
    text = cordon("guard", "dismiss", "--all", "--reason", "no")
    assert AuditKind.CONTAINMENT_DISMISSED in text
    assert "dismissed: 1 containment" in text
    assert cordon("guard", "dismiss", "--all", "--reason", "again").strip() == "no containment waits"
    text = cordon("guard", "status")
    assert "no containment waits" in text
    assert "REACHED" not in text
    cordon("guard", "approve", "--reason", "who", status=2)
    cordon("guard", "dismiss", "edge-1", "--reason", "not waiting", status=1)


def test_many_containments_need_another_operator(
    api: ApiServer, cordon: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    text = cordon("quarantine", "restrict", "edge-4", "edge-5", "edge-6", "--reason", "worm", "--no-wait", status=1)
    (request,) = cordon.json("approval", "list")
    assert f"cordon approval approve {request['request_id']}" in text
    assert "edge-5" in cordon("approval", "show", request["request_id"])
    cordon("approval", "approve", request["request_id"], status=1)
    second = _second(api, capsys)
    assert "edge-6" in second("approval", "approve", request["request_id"])
    assert {device["device_id"] for device in cordon.json("quarantine", "list")} >= {"edge-4", "edge-5", "edge-6"}
    assert "no request waits for a second person" in cordon("approval", "list")
    assert "approved by operator:second" in cordon("approval", "list", "--all")


def test_a_request_is_rejected(cordon: Operator) -> None:
    cordon("quarantine", "isolate", "edge-4", "edge-5", "edge-6", "--reason", "worm", status=1)
    (request,) = cordon.json("approval", "list")
    assert "rejected" in cordon("approval", "reject", request["request_id"], "--reason", "no")
    assert cordon.json("approval", "show", request["request_id"])["state"] == "rejected"


def test_the_requester_hears_the_outcome_or_withdraws(
    api: ApiServer, cordon: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    for minutes in ("10m", "20m"):
        argv = ("edge-4", "edge-5", "edge-6", "--for", minutes, "--reason", "worm", "--no-wait")
        cordon("quarantine", "isolate", *argv, status=1)
    withdrawn, rejected = (one["request_id"] for one in cordon.json("approval", "list"))
    assert "withdrawn" in cordon("approval", "withdraw", withdrawn, "--reason", "solved")
    second = _second(api, capsys)
    second("approval", "withdraw", rejected, "--reason", "not mine", status=1)
    second("approval", "reject", rejected, "--reason", "too many")
    text = cordon("approval", "list", "--mine", "--asks", "contain")
    assert "rejected by operator:second" in text
    assert "too many" in text
    assert second.json("approval", "list", "--mine") == []


def test_scopes_are_asked_for_given_listed_and_ended(
    api: ApiServer, cordon: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    second, wanted = _second(api, capsys), ("--scopes", "command,policy", "--reason", "on call")
    second("approval", "request", *wanted, "--for", "9h", status=1)
    second("approval", "request", "--scopes", ",", "--for", "1h", "--reason", "x", status=2)
    assert "scopes command, policy for 2h" in second("approval", "request", *wanted, "--for", "2h")
    assert "nobody has scopes" in cordon("approval", "grants")
    (request,) = cordon.json("approval", "list")
    assert "the scopes count until" in cordon("approval", "approve", request["request_id"])
    second("command", "send", "edge-4", "rescan")
    assert "command, policy" in second("approval", "grants", "--mine")
    second("approval", "end", request["request_id"], "--reason", "over")
    second("command", "send", "edge-4", "rescan", status=4)


def test_devices_are_contained_by_name_and_tag_at_once(cordon: Operator) -> None:
    cordon("devices", "label", "edge-5", "--tag", "hall-3")
    text = cordon("quarantine", "restrict", "edge-4", "--tag", "hall-3", "--reason", "odd")
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["edge-4", "containment.decided", "restricted", "proven"],
        ["edge-5", "containment.decided", "restricted", "proven"]
    ]  # fmt: skip
    cordon("quarantine", "restrict", "--reason", "nobody", status=2)
    cordon("quarantine", "restrict", "edge-4", "--username", "who", "--reason", "both", status=2)


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Gives these answers at a terminal; returns the list of questions."""
    questions: list[str] = []
    remaining = list(answers)

    def ask(text: str, **_options: Any) -> Any:
        questions.append(text)
        return remaining.pop(0)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda text, **options: ask(text, **options) == "y")
    monkeypatch.setattr(typer, "prompt", ask)
    return questions


def test_containing_a_protected_device_is_confirmed_twice(cordon: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    contain = ("quarantine", "restrict", "edge-7", "--reason", "sure", "--no-wait")
    assert "--even-protected" in cordon(*contain, status=1)
    questions = _answers(monkeypatch, "n")
    cordon(*contain, status=1)
    assert len(questions) == 1
    _answers(monkeypatch, "y", "yes")
    cordon(*contain, status=1)
    questions = _answers(monkeypatch, "y", "contain")
    assert "edge-7: restricted" in cordon(*contain)
    assert len(questions) == 2
    cordon("quarantine", "release", "edge-7", "--reason", "again", "--no-wait")
    assert "edge-7: restricted" in cordon(*contain, "--even-protected")


def test_a_waiver_is_added_listed_and_revoked(cordon: Operator) -> None:
    given = ("--owner", "J. Doe", "--reason", "until Friday", "--for", "1h")
    assert "p/telnet is waived for edge-2" in cordon("waiver", "add", "p/telnet", "--device", "edge-2", *given)
    (waiver,) = cordon.json("waiver", "list")
    assert "J. Doe" in cordon("waiver", "list")
    assert "waived until" in cordon("devices", "show", "edge-2")
    assert "revoked" in cordon("waiver", "revoke", waiver["waiver_id"])
    assert "nothing is waived" in cordon("waiver", "list")
    cordon("waiver", "add", "p/telnet", *given, status=2)
    cordon("waiver", "add", "p/nobody", "--tag", "x", *given, status=1)
    assert cordon.json("waiver", "add", "p/*", "--where", "'lab' in device.tags", *given)["expression"]


def test_a_preview_shows_changes_sums_and_whether_a_reload_would_be_refused(cordon: Operator, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(POLICY)
    text = cordon("policy", "preview", str(file), status=1)
    assert "a reload would be refused" in text
    assert "7 reports evaluated" in text
    preview = cordon.json("policy", "preview", str(tmp_path), "--alone", status=1)
    assert {change["device_id"] for change in preview["changes"]} == {"edge-1", "edge-2", "edge-3"}
    harmless = POLICY.replace("p == 22", "p == 1").replace("p == 23", "p == 1")
    file.write_text(harmless.replace("policy: p", "policy: q"))
    assert "no device would change containment" in cordon("policy", "preview", str(file))
    file.write_text(harmless)
    assert "1 released" in cordon("policy", "preview", str(file))
    file.write_text("policy: p")
    assert "p.yaml" in cordon("policy", "preview", str(file), status=1)
    cordon("policy", "preview", str(tmp_path / "absent.yaml"), status=2)
    file.unlink()
    cordon("policy", "preview", str(tmp_path), status=2)


def test_policies_are_listed_with_their_mode_and_reloaded_by_force(cordon: Operator) -> None:
    assert all(rule["mode"] == "enforce" for policy in cordon.json("policy", "list") for rule in policy["rules"])
    assert "in force" in cordon("policy", "reload", "--force")
