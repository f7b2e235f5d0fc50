"""Rows of the record changed, removed and inserted under a running controller, and secrets that must not be in it."""

import sqlite3
from pathlib import Path

import pytest

from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.store import StoreWrites
from tests.support.agent_process import AgentProcess, write_config
from tests.support.api import api
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_for

CANARY = "canary-7d3f0e"
SECOND = AuditId(1, 2).key


def _bytes_in(folder: Path) -> bytes:
    return b"".join(found.read_bytes() for found in folder.iterdir() if found.is_file())


def _tamper(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, timeout=10)
    try:
        with connection:
            connection.execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (f"UPDATE audit SET actor = 'operator:eve' WHERE id = {SECOND}", "row 1-2 was changed after it was written"),
        (f"DELETE FROM audit WHERE id = {SECOND}", "row 1-2 was removed"),
        ("DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)", "row 1-5 was removed"),
        ("INSERT INTO audit (at, kind, device_id, actor, case_id, alert) VALUES (1, 'k', 'd', 'a', '', 0)",
         "row 1-6 was not written by Cordon: it has no digest"),
    ],
)  # fmt: skip
async def test_rows_tampered_with(tmp_path: Path, statement: str, text: str) -> None:
    path = tmp_path / "cordon.db"
    async with api(path) as one:
        for number in range(5):
            entry = AuditEntry(AuditKind.DEVICE_ONLINE, f"d{number}", "cordon")
            await one.harness.store.commit(StoreWrites(audit=((1.0, entry),)))
        assert (await one.json("GET", "/api/v1/audit/verify"))["ok"]
        _tamper(path, statement)
        found = await one.json("GET", "/api/v1/audit/verify")
        assert not found["ok"]
        assert [flaw["text"] for flaw in found["flaws"]] == [text]


async def test_a_record_written_anew_is_found_by_a_head_noted_before(tmp_path: Path) -> None:
    async with api(tmp_path / "cordon.db") as one:
        await one.harness.store.commit(StoreWrites(audit=((1.0, AuditEntry(AuditKind.DEVICE_ONLINE, "d", "cordon")),)))
        head = (await one.json("GET", "/api/v1/audit/head"))["head"]
        assert (await one.json("GET", f"/api/v1/audit/verify?head={head}"))["ok"]
        other = head[:-1] + ("0" if head[-1] != "0" else "1")
        found = await one.json("GET", f"/api/v1/audit/verify?head={other}")
        assert [flaw["what"] for flaw in found["flaws"]] == ["replaced"]


async def test_no_token_stands_in_store_or_answers(tmp_path: Path) -> None:
    path = tmp_path / "cordon.db"
    async with api(path) as one:
        made = await one.json("POST", "/api/v1/tokens", 201, {"name": "bob"})
        for secret in (f"cordon_{CANARY}", made["token"]):
            headers = {"Authorization": f"Bearer {secret}x"}
            answer = await one.client.get("/api/v1/devices", headers=headers)
            assert answer.status_code == 401
            assert secret not in answer.text
    files = _bytes_in(tmp_path)
    assert CANARY.encode() not in files
    assert made["token"].encode() not in files


def test_the_agents_log_has_no_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(CANARY + "\n")
    password.chmod(0o600)
    (tmp_path / "users").write_text("")
    (tmp_path / "users").chmod(0o600)
    refuses = f"allow_anonymous false\npassword_file {tmp_path / 'users'}"
    with Mosquitto(extra_conf=refuses) as broker:
        more = f'username = "edge-1"\npassword_file = "{password}"'
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], mqtt_more=more)
        with AgentProcess(config) as agent:
            wait_for(lambda: "refused" in agent.log or "not authori" in agent.log.lower(), "the broker's refusal")
            assert CANARY not in agent.log
