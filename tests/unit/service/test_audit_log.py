"""Lines of the log can be followed by device and by case."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.broker_tables import BAN_MARK, Ban
from controller.ports.errors import BrokerUnreachableError
from controller.service.audit_log import MOST_TEXT, AuditLogger, effect_fields, fields_of
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, incoming

_LINES = """
from controller.adapters.logs import configure_logs, logger_for
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.service.audit_log import fields_of
configure_logs("info", "json")
detail = {"event": "x", "reason": "two\\nlines", "steps": [1]}
entry = AuditEntry(AuditKind.CONTAINMENT_DECIDED, "edge-1", "policy", "case-9", detail, True)
logger_for("record")(entry.kind.value, fields_of(entry))
"""


async def test_one_case_is_one_thread_through_the_log(tmp_path: Path) -> None:
    lines: list[tuple[str, dict[str, object]]] = []
    logger = AuditLogger(lambda event, fields: lines.append((event, dict(fields))))
    async with open_harness(tmp_path / "c.db", listeners=(logger,)) as harness:
        harness.broker.fails = [BrokerUnreachableError("no node answered")]
        await harness.ingest.process_batch(
            [incoming("edge-1", full("edge-1", 1, 23)), incoming("edge-2", full("edge-2", 1))]
        )
        await harness.drain()
        case = devices_of(harness.fleet)["edge-1"].case
        assert case is not None
        harness.outbox.queue.retry_now("edge-1")
        await harness.drain()
    assert [event for event, _ in lines if event == AuditKind.CONTAINMENT_PROVEN] == [AuditKind.CONTAINMENT_PROVEN]
    mine = [event for event, fields in lines if fields.get("case") == case.case_id]
    assert mine.index(AuditKind.CONTAINMENT_FAILED) < mine.index(AuditKind.CONTAINMENT_PROVEN)
    assert {fields["device"] for _, fields in lines if fields.get("case")} == {"edge-1"}
    retried = next(fields for event, fields in harness.logged if event == "effect will be retried")
    assert (retried["device"], retried["case"], retried["effect"]) == ("edge-1", case.case_id, "RestrictClient")


async def test_every_listener_is_called_in_order(tmp_path: Path) -> None:
    heard: list[str] = []
    first = AuditLogger(lambda event, _fields: heard.append(event))
    second = AuditLogger(lambda event, _fields: heard.append(f"log: {event}"))
    async with open_harness(tmp_path / "c.db", listeners=(first, second)) as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1))])
    assert heard
    assert heard[0::2] == [one.removeprefix("log: ") for one in heard[1::2]]


async def test_a_command_is_named_by_its_id(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        sent = [effect_fields(one) for one in await harness.store.effects()]
    assert {one["effect"] for one in sent} == {"RestrictClient", "SendCommand"}
    assert all(("command" in one) is (one["effect"] == "SendCommand") for one in sent)
    assert {one["device"] for one in sent} == {"edge-1"}


async def test_a_ban_that_is_left_alone_names_device_and_case(tmp_path: Path) -> None:
    lines: list[Mapping[str, object]] = []
    async with open_harness(
        tmp_path / "c.db", listeners=(AuditLogger(lambda _event, fields: lines.append(fields)),)
    ) as harness:
        ban = Ban(kind="clientid", who="ghost", by=f"{BAN_MARK}case-7", reason="r", at=1.0, until=None)
        harness.broker.bans_held["ghost"] = ban
        await harness.reconciler.reconcile()
    drift = [fields for fields in lines if fields.get("what") == "a ban of an unknown device"]
    assert [(fields["device"], fields["case"]) for fields in drift] == [("ghost", "case-7")]


def test_values_are_bounded_and_never_take_the_lines_own_names() -> None:
    entry = AuditEntry(
        AuditKind.DEVICE_ONLINE,
        "d",
        "",
        detail={"device": "other", "text": "x" * 999, "many": [1, 2], "n": 3, "ok": True},
    )
    assert fields_of(entry) == {"device": "d", "device_": "other", "text": "x" * MOST_TEXT, "n": 3, "ok": True}


def test_a_line_is_one_json_object_whatever_a_device_wrote() -> None:
    done = subprocess.run([sys.executable, "-c", _LINES], capture_output=True, text=True, timeout=60, check=True)
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    del found["timestamp"]
    assert found == {
        "event": "containment.decided", "event_": "x", "reason": "two\nlines", "device": "edge-1", "case": "case-9",
        "actor": "policy", "alert": True, "part": "record", "level": "warning",
    }  # fmt: skip


async def test_entries_that_follow_from_no_event_reach_the_listeners(tmp_path: Path) -> None:
    lines: list[str] = []
    async with open_harness(
        tmp_path / "c.db", listeners=(AuditLogger(lambda event, _fields: lines.append(event)),)
    ) as harness:
        await harness.fleet.record(AuditEntry(AuditKind.TOKEN_CREATED, "", "operator:ada"))
        (line,) = await harness.store.audit()
    assert (lines, line.entry.kind, line.at) == (["token.created"], AuditKind.TOKEN_CREATED, harness.clock.at)


def test_lines_of_tuf_about_keys_that_did_not_sign_are_not_in_the_log() -> None:
    code = (
        "import logging\n"
        "from controller.adapters.logs import configure_logs\n"
        "configure_logs('info', 'json')\n"
        "logging.getLogger('tuf.api._payload').warning('No signature for keyid 1')\n"
        "logging.getLogger('tuf.api._payload').info('No signature for keyid 2')\n"
        "logging.getLogger('other').warning('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "shown" in done.stderr
    assert "keyid" not in done.stderr
