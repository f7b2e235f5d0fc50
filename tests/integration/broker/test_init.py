"""`cordon init` at a stand-in: what it asks at a terminal, what it leaves to people, what it never changes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from controller.cli.app import run_safely
from tests.support.standin import StandInProcess


@pytest.fixture
def emqx() -> Iterator[StandInProcess]:
    with StandInProcess(users=[("lab", "lab-password")]) as process:
        yield process


@pytest.fixture
def args(emqx: StandInProcess, tmp_path: Path) -> list[str]:
    secret = tmp_path / "secret"
    secret.write_text(emqx.secret)
    secret.chmod(0o600)
    host, port = emqx.mqtt[0]
    return [
        "init", "--dir", str(tmp_path / "conf"), "--mqtt", f"mqtt://{host}:{port}", "--emqx", emqx.api_urls[0],
        "--emqx-key", emqx.key, "--emqx-secret-file", str(secret),
    ]  # fmt: skip


def _read(emqx: StandInProcess, path: str) -> Any:
    answer = httpx.get(f"{emqx.api_urls[0]}/api/v5{path}", auth=(emqx.key, emqx.secret), timeout=10, trust_env=False)
    assert answer.status_code == 200
    return answer.json()


def test_the_broker_is_set_up_with_its_limits_as_they_are(
    emqx: StandInProcess, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    zone = _read(emqx, "/configs/global_zone")
    assert run_safely([*args, "--yes"]) == 0
    assert "cordon broker setup --plan" in capsys.readouterr().out
    assert _read(emqx, "/configs/global_zone") == zone
    rules = _read(emqx, "/authorization/sources/built_in_database/rules/all")["rules"]
    assert [rule["topic"] for rule in rules] == [
        "cordon/v1/${clientid}/up/#", "cordon/v1/${clientid}/down/#", "cordon/v1/#",
    ]  # fmt: skip


@pytest.mark.parametrize(("answer", "no_match"), [(True, "deny"), (False, "allow")])
def test_a_terminal_is_asked_whether_to_deny_what_no_rule_allows(
    emqx: StandInProcess, args: list[str], monkeypatch: pytest.MonkeyPatch, answer: bool, no_match: str
) -> None:
    questions: list[str] = []

    def confirm(text: str, **_options: Any) -> bool:
        questions.append(text)
        return answer if "no rule allows" in text else True

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", confirm)
    assert run_safely(args) == 0
    assert len(questions) == 2
    assert _read(emqx, "/authorization/settings")["no_match"] == no_match
