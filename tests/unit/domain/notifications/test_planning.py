"""Grouping, deduplication, bursts and quiet hours, for any order of lines."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.audit_texts import sentence
from controller.domain.audit_kinds import AuditKind
from controller.domain.notifications.kinds import NOT_PROVEN, classify, notifying_kinds
from controller.domain.notifications.model import (
    AlertSeverity,
    Delivery,
    QuietHours,
    Sink,
    SinkRule,
    Thread,
    ThreadStatus,
)
from controller.domain.notifications.planning import BURST, REPEAT, WINDOW, Bursts, Line, Planner, ThreadKey
from tests.support.notifications import NOW, line, sink

DECIDED, FAILED = AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_FAILED
PROVEN, RELEASED = AuditKind.CONTAINMENT_PROVEN, AuditKind.CONTAINMENT_RELEASE_PROVEN
CRITICAL = sink("critical", rules=(SinkRule(severity=AlertSeverity.CRITICAL),))


class _Planning:
    """Plans line after line, as the dispatcher does."""

    def __init__(self, *sinks: Sink) -> None:
        zones = {one.quiet.zone: ZoneInfo(one.quiet.zone) for one in sinks if one.quiet}
        self._planner = Planner(sinks, zones, sentence, Bursts())
        self._threads: dict[ThreadKey, Thread] = {}
        self.all: dict[str, Delivery] = {}
        self.acknowledged: frozenset[str] = frozenset()

    def plan(self, *lines: Line, now: float | None = None) -> list[Delivery]:
        plan = self._planner.plan(lines, self._threads, self.acknowledged, lines[-1].at if now is None else now)
        self._threads |= plan.threads
        self.all |= plan.deliveries
        return list(plan.deliveries.values())

    def kinds(self, *lines: Line) -> list[str]:
        return [one.message.kind for one in self.plan(*lines)]


def test_who_was_told_of_the_worse_is_told_of_the_better_and_of_the_end() -> None:
    told = _Planning(CRITICAL)
    assert told.kinds(line(DECIDED, 1)) == []
    assert told.kinds(line(FAILED, 2), line(PROVEN, 3)) == [FAILED, PROVEN]
    (end,) = told.plan(line(RELEASED, 4))
    assert (end.message.status, end.message.thread) == (ThreadStatus.RESOLVED, "case:case-1")
    assert told.kinds(line(PROVEN, 5), line(RELEASED, 6)) == []


def test_a_state_is_told_once_and_again_only_after_hours_or_a_change() -> None:
    told = _Planning(sink())
    assert told.kinds(line(FAILED, 1, what="ban")) == [FAILED]
    assert told.kinds(line(FAILED, 2, what="ban", trouble="another text"), line(FAILED, 3, what="ban")) == []
    (again,) = told.plan(line(FAILED, 4, what="ban", at=NOW + REPEAT))
    assert again.message.count == 3
    assert told.kinds(line(FAILED, 5, what="rules")) == [FAILED]
    assert told.kinds(line(PROVEN, 6), line(FAILED, 7, what="ban")) == [PROVEN, FAILED]


@pytest.mark.parametrize("differs", [{"name": "eve"}, {"reason": "codes of eve"}, {"actor": "person:eve"}])
def test_what_is_told_of_one_subject_is_told_of_another_one_too(differs: dict[str, str]) -> None:
    told = _Planning(sink())
    kinds = [kind for kind in AuditKind if kind not in notifying_kinds() and kind is not AuditKind.CRL_FAILED]
    for number, kind in enumerate(kinds):
        boss: dict[str, Any] = {"actor": "person:boss", "name": "boss", "device": "", "case": "", "alert": True}
        at = NOW + 600 * number
        lines = [line(kind, 3 * number + n, at=at, count=n, **boss) for n in range(2)]
        other = line(kind, 3 * number + 2, at=at, **{**boss, **differs})
        assert told.kinds(*lines, other) == [kind, kind], "the same again is no news"


def test_a_line_about_a_person_begins_with_the_name() -> None:
    told = _Planning(sink())
    used = line(AuditKind.FACTOR_CODE_USED, 1, device="", case="", alert=True, actor="person:boss")
    reset = line(
        AuditKind.ACCOUNT_FACTORS_RESET, 2, device="", case="", alert=True, actor="operator:machine", name="ann"
    )
    assert [one.message.headline.partition(":")[0] for one in told.plan(used, reset)] == ["boss", "ann"]


def test_changes_of_factors_and_the_end_of_scopes_are_told_of_each_person() -> None:
    told = _Planning(sink())
    for kind in (AuditKind.FACTOR_REGISTERED, AuditKind.FACTOR_REMOVED, AuditKind.SSO_TRIED):
        by = [line(kind, n, device="", case="", actor=f"person:{who}", name="key") for n, who in enumerate("aab")]
        assert told.kinds(*by) == [kind, kind], "the same of another person is news"
    granted = line(AuditKind.APPROVAL_GRANTED, 7, device="", case="", request="r-1", requester="person:a")
    ended = line(AuditKind.SCOPES_ENDED, 8, device="", case="", request="r-1", requester="person:a")
    assert [one.message.thread for one in told.plan(granted, ended)] == ["approval:r-1"] * 2
    (removed,) = told.plan(line(AuditKind.FACTOR_REMOVED, 9, device="", case="", actor="person:c", name="key"))
    assert removed.message.headline.startswith("c: ")


def test_an_acknowledged_case_tells_changes_only() -> None:
    told = _Planning(sink())
    told.plan(line(FAILED, 1))
    told.acknowledged = frozenset({"case-1"})
    assert told.kinds(line(FAILED, 2, at=NOW + 10 * REPEAT)) == []
    assert told.kinds(line(AuditKind.CONTAINMENT_PARTLY_PROVEN, 3)) == [AuditKind.CONTAINMENT_PARTLY_PROVEN]


def test_rules_choose_by_kind_severity_and_class() -> None:
    pumps = sink("pumps", rules=(SinkRule(("containment.*",), AlertSeverity.WARNING, ("pump",)),))
    told = _Planning(pumps)
    assert told.kinds(line(DECIDED, 1, device_class="valve"), line(PROVEN, 2, device_class="pump")) == []
    assert told.kinds(line(DECIDED, 3, device_class="pump", case="case-2")) == [DECIDED]
    assert told.kinds(line(AuditKind.ROLLOUT_STOPPED, 4, device_class="pump", case="")) == []


def test_a_burst_is_told_together_and_nobody_is_lost() -> None:
    told = _Planning(sink())
    for number in range(BURST + 300):
        told.plan(line(DECIDED, number, device=f"edge-{number}", case=f"case-{number}"))
    together = [one for one in told.all.values() if one.message.thread.startswith("burst:")]
    assert len(told.all) == BURST + 1
    assert (together[0].message.count, together[0].due) == (300, NOW + WINDOW)
    assert told.kinds(line(DECIDED, 999, case="later", at=NOW + WINDOW)) == [DECIDED]


def test_a_sink_is_not_told_of_itself() -> None:
    told = _Planning(sink("ops"), sink("other"))
    failed = line(AuditKind.NOTIFICATION_SINK_FAILED, case="", device="", alert=True, sink="ops")
    assert [one.sink for one in told.plan(failed)] == ["other"]


_LINES = st.lists(
    st.tuples(
        st.sampled_from([one for one in AuditKind if one.value.startswith(("containment.", "link.", "approval."))]),
        st.integers(0, 3),
        st.floats(0, 5 * REPEAT),
    ),
    max_size=40,
)


@given(_LINES, st.integers(0, 1439), st.integers(0, 1439), st.sampled_from(["UTC", "Europe/Vienna", "Asia/Kolkata"]))
def test_whatever_happens_each_line_is_told_or_known_and_not_proven_is_never_held_back(
    events: list[tuple[AuditKind, int, float]], begin: int, end: int, zone: str
) -> None:
    quiet = sink("ops", quiet=None if begin == end else QuietHours(begin, end, zone))
    told, open_states = _Planning(quiet), dict[str, bool]()
    keys = Counter[str]()
    for seq, (kind, number, after) in enumerate(sorted(events, key=lambda one: one[2])):
        one = line(kind, seq, device=f"edge-{number}", case=f"case-{number}", at=NOW + after, alert=True)
        found = classify(one.entry)
        assert found is not None
        planned = told.plan(one)
        keys.update(each.key for each in planned)
        for each in planned:
            if kind in NOT_PROVEN and not each.message.thread.startswith("burst:"):
                assert each.due == one.at, "quiet hours held it back"
            assert each.due - one.at < 86_400 + 3600
            assert each.message.thread in {found.thread, f"burst:{each.key}"}
        if found.status is ThreadStatus.RESOLVED and open_states.get(found.thread):
            assert planned, "the end of what was told is told"
        if planned and found.status is not ThreadStatus.EVENT:
            open_states[found.thread] = found.status is ThreadStatus.OPEN
    assert all(count == 1 or told.all[key].message.thread.startswith("burst:") for key, count in keys.items())


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2026-12-01T22:00", "2026-12-02T06:00"),
        ("2026-12-02T05:59", "2026-12-02T06:00"),
        ("2026-12-02T06:00", None),
        ("2026-12-01T21:59", None),
        ("2026-03-28T23:00", "2026-03-29T06:00"),  # an hour is skipped
        ("2026-10-24T23:00", "2026-10-25T06:00"),  # an hour comes twice
    ],
)
def test_quiet_hours_are_of_the_clock_on_the_wall(at: str, until: str | None) -> None:
    zone = ZoneInfo("Europe/Vienna")
    now = datetime.fromisoformat(at).replace(tzinfo=zone).timestamp()
    found = QuietHours(22 * 60, 6 * 60, "Europe/Vienna").until(now, zone)
    assert (None if found is None else datetime.fromtimestamp(found, UTC).astimezone(zone).isoformat()[:16]) == until
