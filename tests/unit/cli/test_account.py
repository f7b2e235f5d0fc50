"""`cordon account` on the machine, beside a running controller too."""

import asyncio
import io
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run_safely
from controller.domain.audit_kinds import AuditKind
from controller.ports.store import StoreWrites
from tests.support.store import line, opened


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The configuration of a first run."""
    assert run_safely(["init", "--dir", str(tmp_path), "--no-broker", "--listen", "127.0.0.1:8480"]) == 0
    capsys.readouterr()
    return tmp_path / "cordon.toml"


class _Lines(io.StringIO):
    def isatty(self) -> bool:
        return False


def _run(config: Path, *words: str, given: str = "") -> int:
    before, sys.stdin = sys.stdin, _Lines(given)
    try:
        return run_safely(["account", *words, "--config", str(config)])
    finally:
        sys.stdin = before


def _audit(config: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(config.parent / "cordon.db")
    found = connection.execute(
        "SELECT kind, actor, alert FROM audit WHERE kind LIKE 'account.%' ORDER BY id"
    ).fetchall()
    connection.close()
    return found


def test_init_makes_the_first_administrator(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config, "list", "-o", "json") == 0
    (admin,) = json.loads(capsys.readouterr().out)
    assert (admin["name"], admin["role"], admin["has_password"], admin["tokens"]) == ("admin", "admin", False, 1)
    assert admin["setup_until"]
    connection = sqlite3.connect(config.parent / "cordon.db")
    made = connection.execute("SELECT actor, alert FROM audit WHERE kind = 'token.created'").fetchall()
    connection.close()
    assert made == [("operator:machine", 0)], "the token of the first run is in the audit too"


def test_an_account_is_made_changed_and_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(_audit(config))
    assert _run(config, "create", "ada", "--role", "operator") == 0
    assert capsys.readouterr().out.startswith("http://localhost:8480/setup?code=")
    assert _run(config, "set-password", "ada", given="correct horse battery\n") == 0
    assert _run(config, "set-role", "ada", "admin") == 0
    assert _run(config, "disable", "admin") == 0
    assert _run(config, "reset-factor", "ada") == 0
    assert "setup?code=" in capsys.readouterr().out
    assert _run(config, "show", "ada") == 0
    assert "admin" in capsys.readouterr().out
    told = _audit(config)[before:]
    assert [kind for kind, _, _ in told] == [
        AuditKind.ACCOUNT_CREATED, AuditKind.ACCOUNT_SETUP_CODE_CREATED, AuditKind.ACCOUNT_PASSWORD_CHANGED,
        AuditKind.ACCOUNT_ROLE_CHANGED, AuditKind.ACCOUNT_DISABLED, AuditKind.ACCOUNT_FACTORS_RESET,
    ]  # fmt: skip
    assert {(actor, alert) for _, actor, alert in told} == {("operator:machine", 1)}


def test_a_disabled_account_gets_no_code_that_it_cannot_use(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config, "create", "ada", "--role", "operator") == 0
    assert _run(config, "disable", "ada") == 0
    capsys.readouterr()
    assert _run(config, "reset-factor", "ada") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cordon account enable ada" in shown.err


@pytest.mark.parametrize(
    ("words", "given", "text"),
    [
        (("create", "ADMIN", "--role", "viewer"), "", "choose another"),
        (("create", "bob", "--role", "king"), "", "there is no role king"),
        (("show", "bob"), "", "no account bob"),
        (("disable", "admin"), "", "last account that administers"),
        (("set-role", "admin", "viewer"), "", "last account that administers"),
        (("set-password", "admin"), "password1234\n", "common"),
        (("set-password", "admin"), "", "at least"),
    ],
)
def test_what_is_refused(
    config: Path, words: tuple[str, ...], given: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _audit(config)
    assert _run(config, *words, given=given) != 0
    assert text in capsys.readouterr().err
    assert _audit(config) == before


async def test_the_chain_holds_when_a_controller_writes_too(config: Path) -> None:

    async with opened(config.parent / "cordon.db") as store:
        for number in range(3):
            await store.commit(line(f"edge-{number}"))
            assert await asyncio.to_thread(_run, config, "create", f"p{number}", "--role", "viewer") == 0
            await store.commit(StoreWrites(audit=line(f"late-{number}").audit))
        assert (await store.check_audit()).is_intact
        assert len(await store.audit(kind=AuditKind.ACCOUNT_CREATED)) == 4
