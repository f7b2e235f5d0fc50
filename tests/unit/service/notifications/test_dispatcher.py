"""What is decided is told: once planned, with the same key whatever happens in between."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.api.audit_texts import sentence
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.model import AlertSeverity, QuietHours, SinkRule
from controller.domain.notifications.planning import REPEAT
from controller.domain.notifications.retry import ALERT_AFTER, GIVE_UP, Fault, Outcome
from controller.service.notifications import dispatcher as module
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.notifications import SECRETS, add_sink, deliver
from tests.support.reports import full, incoming

DOWN = Outcome(Fault.SINK, "connection refused")


async def _violate(harness: ControllerHarness, device: str = "edge-1") -> None:
    await harness.ingest.process_batch([incoming(device, full(device, 1, 23))])


async def test_a_case_is_told_from_its_beginning_to_its_end_as_one_thread(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await _violate(harness, "edge-0")
        await harness.drain()
        await add_sink(harness)  # what was before is not told
        await _violate(harness)
        await deliver(harness)
        assert harness.sender.kinds("ops") == ["containment.decided"]
        await harness.drain()
        await harness.services.containment.operators.release(["edge-1"], "operator:tests", "mended")
        await harness.drain()
        await deliver(harness)
        told = [one for _, one, _ in harness.sender.sent]
        assert [(one.message.kind, one.message.status) for one in told] == [
            ("containment.decided", "open"),
            ("containment.proven", "open"),
            ("containment.release_decided", "open"),
            ("containment.release_proven", "resolved"),
        ]
        assert len({one.message.thread for one in told}) == 1
        assert len({one.key for one in told}) == len(told)
        assert {one.message.device_id for one in told} == {"edge-1"}


async def test_a_crash_at_any_step_loses_nothing_and_keeps_the_key(tmp_path: Path) -> None:
    """Opening the store again is what a crash leaves: nothing in memory survives it."""
    path = tmp_path / "c.db"
    async with open_harness(path, settings=SECRETS) as harness:
        await add_sink(harness)
        await _violate(harness)  # committed; not planned
    async with open_harness(path, settings=SECRETS) as harness:
        dispatcher = harness.services.notifications.dispatcher
        await dispatcher.load()
        await dispatcher.plan()  # planned; not sent
    async with open_harness(path, settings=SECRETS) as harness:
        dispatcher = harness.services.notifications.dispatcher
        await dispatcher.load()
        claimed = await dispatcher.store.claim("ops", harness.clock.now())  # sent, perhaps; not ended
        assert claimed is not None
    async with open_harness(path, settings=SECRETS) as harness:
        await harness.services.notifications.dispatcher.load()
        await deliver(harness)
        ((name, again, _),) = harness.sender.sent
        assert (name, again.key, again.attempts) == ("ops", claimed[0].key, 2)
    async with open_harness(path, settings=SECRETS) as harness:
        await harness.services.notifications.dispatcher.load()
        await deliver(harness)
        assert harness.sender.sent == []


async def test_a_dead_sink_holds_up_no_other_and_is_an_alert_after_fifteen_minutes(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness, "dead")
        await add_sink(harness, "ops")
        harness.sender.answer = lambda sink, _: DOWN if sink.name == "dead" else Outcome()
        await _violate(harness)
        await deliver(harness)
        assert harness.sender.kinds("ops") == ["notification.sink_added", "containment.decided"]
        assert harness.sender.kinds("dead") == ["notification.sink_added"]
        harness.clock.at += ALERT_AFTER - 1
        await deliver(harness)
        assert "notification.sink_failed" not in harness.sender.kinds("ops")
        harness.clock.at += 1
        await deliver(harness)
        await deliver(harness)
        assert harness.sender.kinds("ops")[-1] == "notification.sink_failed"
        assert "notification.sink_failed" not in harness.sender.kinds("dead")
        alerts = await harness.store.audit(kind=AuditKind.NOTIFICATION_SINK_FAILED)
        assert [(one.entry.alert, one.entry.detail) for one in alerts] == [
            (True, {"sink": "dead", "why": "connection refused"})
        ]
        harness.sender.answer = lambda _sink, _delivery: Outcome()
        harness.clock.at += 301
        await deliver(harness)
        await deliver(harness)
        assert harness.sender.kinds("dead")[-2:] == ["notification.sink_added", "containment.decided"]
        assert harness.sender.kinds("ops")[-1] == "notification.sink_recovered"


async def test_a_full_queue_drops_the_least_urgent_and_the_next_message_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 30)
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        harness.sender.answer = lambda _sink, _delivery: DOWN
        for number in range(40):  # one a minute: no burst
            kind = AuditKind.CONTAINMENT_FAILED if number < 10 else AuditKind.CONTAINMENT_DECIDED
            harness.clock.at += 61.0
            await harness.fleet.record(AuditEntry(kind, "", "cordon", f"case-{number}", {}))
            await harness.services.notifications.dispatcher.plan()
        await harness.services.notifications.dispatcher.plan()
        state = (await harness.services.notifications.dispatcher.store.states())["ops"]
        assert (state.pending, state.dropped) == (30, 11)  # one is about the drops
        assert (await harness.store.audit(kind=AuditKind.NOTIFICATION_DROPPED))[0].entry.alert
        harness.sender.answer = lambda _sink, _delivery: Outcome()
        harness.sender.sent.clear()
        await deliver(harness)
        kinds = harness.sender.kinds("ops")
        assert kinds.count("containment.failed") == 10
        assert [missed > 0 for _, _, missed in harness.sender.sent[:2]] == [True, False]


async def test_what_a_receiver_refuses_holds_up_no_other_message(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        refused = Outcome(Fault.MESSAGE, "status 400")
        harness.sender.answer = lambda _, one: refused if one.message.device_id == "edge-1" else Outcome()
        await _violate(harness, "edge-1")
        await _violate(harness, "edge-2")
        await deliver(harness)
        assert [one.message.device_id for _, one, _ in harness.sender.sent] == ["edge-1", "edge-2"]
        for _ in range(10):
            harness.clock.at += 301
            await deliver(harness)
        log, _ = await harness.services.notifications.log("ops", None, 10, 0)
        states = {one.delivery.message.device_id: (one.state, one.delivery.attempts) for one in log}
        assert states["edge-1"] == ("given_up", 5)
        assert states["edge-2"] == ("delivered", 1)


async def test_a_message_is_given_up_after_a_day_and_a_last_try(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        harness.sender.answer = lambda _sink, _delivery: DOWN
        await _violate(harness)
        await deliver(harness)
        harness.clock.at += GIVE_UP - 10
        await deliver(harness)
        harness.clock.at += 11
        await deliver(harness)
        log, _ = await harness.services.notifications.log("ops", None, 10, 0)
        assert (log[-1].state, log[-1].delivery.attempts) == ("given_up", 3)


async def test_what_is_not_proven_is_repeated_until_somebody_acknowledges_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        entry = AuditEntry(AuditKind.CONTAINMENT_FAILED, "edge-1", "cordon", "case-1", {"what": "ban"}, alert=True)
        await harness.fleet.record(entry, replace(entry, case_id="case-2"))
        await deliver(harness)
        assert len(harness.sender.sent) == 2
        await harness.services.notifications.acknowledge("case-2", "operator:anna", "I drive there")
        harness.clock.at += REPEAT + 61
        await deliver(harness)
        assert [(one.message.case_id, one.message.is_reminder) for _, one, _ in harness.sender.sent[2:]] == [
            ("case-2", False),  # that anna looks after it
            ("case-1", True),
        ]
        log, _ = await harness.services.notifications.log(None, "case-2", 10, 0)
        assert {one.acknowledged and one.acknowledged.by for one in log} == {"operator:anna"}


async def test_quiet_hours_hold_back_all_but_what_is_not_proven(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness, quiet=QuietHours(0, 1439))
        await _violate(harness)
        await harness.fleet.record(AuditEntry(AuditKind.CONTAINMENT_FAILED, "edge-2", "cordon", "case-2", alert=True))
        await deliver(harness)
        assert harness.sender.kinds("ops") == ["containment.failed"]
        harness.clock.at += 86_400
        await deliver(harness)
        assert set(harness.sender.kinds("ops")) == {"containment.decided", "containment.failed"}


async def test_a_removed_sink_is_told_nothing_and_a_rule_chooses(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness, "gone")
        await add_sink(harness, "critical", rules=(SinkRule(severity=AlertSeverity.CRITICAL),))
        await _violate(harness)
        await harness.services.notifications.dispatcher.plan()
        await harness.services.notifications.remove("gone", "operator:tests")
        await harness.services.notifications.dispatcher.load()
        await deliver(harness)
        assert harness.sender.sent == []


async def test_a_line_that_cannot_be_told_keeps_no_other_back(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        dispatcher = harness.services.notifications.dispatcher

        def broken(kind: AuditKind) -> str:
            if kind is AuditKind.CONTAINMENT_FAILED:
                raise LookupError(kind)
            return sentence(kind)

        dispatcher._sentence = broken
        await _violate(harness, "edge-1")
        await harness.fleet.record(AuditEntry(AuditKind.CONTAINMENT_FAILED, "edge-2", "cordon", "case-2", alert=True))
        await _violate(harness, "edge-3")
        await deliver(harness)
        assert [one.message.device_id for _, one, _ in harness.sender.sent] == ["edge-1", "edge-3"]


async def test_a_quiet_report_wakes_nobody(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", settings=SECRETS) as harness:
        await add_sink(harness)
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        wake = harness.services.notifications.dispatcher._wake
        wake.event.clear()
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
        assert not wake.event.is_set()
        await _violate(harness, "edge-2")
        assert wake.event.is_set()


def test_pages_and_bounds_are_what_the_documents_say() -> None:
    assert (module.MAX_WAITING, module.PAGE) == (1000, 500)
