"""Posture reports, heartbeats, status, silence and labels."""

from dataclasses import replace
from typing import Any

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import ContainmentCase, RuleState
from controller.domain.effects import RestrictClient, SendReceipt
from controller.domain.evolve import evolve
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.domain.reports import is_no_change_heartbeat, is_repeated_report
from controller.domain.step import step
from controller.domain.transition import StepOutcome
from schemas.events import ReceiptVerdict, RejectReason
from tests.support.playbook import DIGEST, START, beat, device, given, policies, reported, rule

OTHER = "sha256:" + "b" * 64
RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, consecutive=2, grace=60.0)),
)


def test_first_report_is_accepted_and_stored() -> None:
    play = given(device(), RULES).when(reported(passing=("telnet", "slow"), at=START + 1)).then_nothing()
    play.recorded(AuditKind.REPORT_FIRST_ACCEPTED)
    assert play.receipts == (SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, DIGEST),)
    state = play.state
    assert (state.report_seq, state.digest, state.reported_at, state.satisfied) == (1, DIGEST, START + 1, 2)
    assert (state.judged_by, state.agent, state.boot_id) == ("v1", "1.0", "boot")


def test_lower_sequence_number_of_the_same_boot_is_rejected() -> None:
    play = given(device(), RULES).when(reported(seq=5)).when(reported("telnet", seq=4)).then_nothing()
    detail = "report 5 was accepted already"
    assert play.receipts == (SendReceipt("d1", 4, ReceiptVerdict.REJECTED, None, RejectReason.STALE_SEQUENCE, detail),)


def test_redelivered_report_is_accepted_again_and_changes_only_the_time_of_contact() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    again = play.when(reported("telnet", at=START + 3, event_id="again")).then_nothing().recorded()
    assert again.receipts == (SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, DIGEST),)
    assert again.state.rules == play.state.rules
    assert again.state.last_seen == START + 3


def test_same_sequence_number_with_another_content_is_evaluated() -> None:
    given(device(), RULES).when(reported()).when(reported("telnet", digest=OTHER)).then(
        RestrictClient("", "d1", "", True)
    )


def test_unchanged_report_is_not_evaluated_again_but_counts_as_a_report_in_a_row() -> None:
    play = given(device(), RULES).when(reported("slow"))
    unchanged = replace(reported(seq=2, at=START + 60, event_id="r2"), findings=None)
    play = play.when(unchanged, at=START + 60).then(RestrictClient("", "d1", "", True))
    assert (play.state.report_seq, play.state.rules["p/slow"].streak) == (2, 2)
    assert (play.state.satisfied, play.state.judged_by) == (0, "v1")


def test_sequence_may_restart_in_a_new_boot() -> None:
    play = given(device(), RULES).when(reported(seq=9)).when(reported(seq=1, boot_id="next"))
    play.recorded(AuditKind.REPORT_SEQUENCE_REGRESSED)
    assert play.state.report_seq == 1


def test_change_of_posture_is_recorded_once() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(reported("telnet", seq=2)).recorded()
    play = play.when(reported(passing=("telnet",), seq=3))
    assert play.audit[0].kind == AuditKind.REPORT_POSTURE_CHANGED
    assert play.audit[0].detail == {"seq": 3, "digest": DIGEST, "worse": {}, "better": ["p/telnet"]}


def test_heartbeat_with_an_unknown_digest_requests_the_full_report() -> None:
    for play in (given(device(), RULES).when(beat()), given(device(), RULES).when(reported()).when(beat(digest=OTHER))):
        play.then_nothing()
        assert play.receipts == (SendReceipt("d1", 2, ReceiptVerdict.RESEND_FULL),)


def test_heartbeat_of_a_healthy_device_changes_only_the_time_of_contact() -> None:
    play = given(device(), RULES).when(reported()).when(beat(at=START + 60)).then_nothing().recorded()
    assert play.receipts == ()
    assert play.state.last_seen == START + 60


def test_heartbeats_count_as_reports_in_a_row() -> None:
    play = given(device(), RULES).when(reported("slow")).then_nothing()
    play = play.when(beat(), at=START + 59).then_nothing()
    play.when(beat(), at=START + 60).then(RestrictClient("", "d1", "", True))


def test_heartbeat_evaluated_by_other_policies_contains_and_releases() -> None:
    failing, passing = (Finding("p/telnet", RuleResult.FAIL),), (Finding("p/telnet", RuleResult.PASS),)
    play = given(device(), RULES).when(reported(passing=("telnet",)))
    play = play.when(beat(findings=failing, judged_by="v2")).then(RestrictClient("", "d1", "h", True))
    assert play.state.judged_by == "v2"
    play = play.when(beat(findings=passing, judged_by="v3", event_id="h2"))
    assert play.state.case is None


def test_silence_is_recorded_and_ends_with_the_next_message() -> None:
    play = given(device(), RULES).when(reported()).when(ev.DeviceWentStale("s", 300.0)).recorded(AuditKind.DEVICE_STALE)
    assert play.state.stale
    for message in (beat(at=START + 400), reported(seq=2, at=START + 400)):
        resumed = play.when(message).recorded(AuditKind.DEVICE_CONTACT_RESUMED)
        assert not resumed.state.stale


def test_online_status_is_recorded_when_it_changes() -> None:
    play = given(device()).when(ev.StatusChanged("a", True, "boot")).recorded(AuditKind.DEVICE_ONLINE)
    play = play.when(ev.StatusChanged("b", True, "boot")).recorded()
    play = play.when(ev.StatusChanged("c", False, "")).recorded(AuditKind.DEVICE_OFFLINE)
    assert play.state.online is False


def test_labels_are_recorded_with_the_earlier_ones() -> None:
    play = given(device()).when(ev.DeviceLabelled("a", "lab", ("x", "y"), "ada")).recorded(AuditKind.DEVICE_LABELLED)
    assert (play.state.device_class, play.state.tags) == ("lab", ("x", "y"))
    assert play.audit[0].detail == {
        "device_class": "lab", "tags": ["x", "y"], "before": {"device_class": "", "tags": []},
    }  # fmt: skip


def test_no_change_heartbeat_changes_nothing_but_the_time_of_contact() -> None:
    healthy = device(digest=DIGEST, judged_by="v1")
    assert is_no_change_heartbeat(healthy, DIGEST, policies(rule("a")))
    outcome = step(healthy, beat(at=START + 5), START + 5, policies(rule("a")))
    assert outcome == StepOutcome(evolve(healthy, last_seen=START + 5))


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": ""},
        {"stale": True},
        {"judged_by": "v0"},
        {"rules": {"p/a": RuleState(RuleResult.FAIL, START, 1)}},
        {"case": ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "ada", "", START, START)},
    ],
)
def test_heartbeat_of_an_unhealthy_or_stale_device_is_a_change(changes: dict[str, Any]) -> None:
    state = device(**{"digest": DIGEST, "judged_by": "v1", **changes})
    assert not is_no_change_heartbeat(state, DIGEST, policies(rule("a")))


@pytest.mark.parametrize("other", [(7, "boot", "1.0"), (9, "", "1.0"), (9, "other", "1.0"), (9, "boot", "1.1")])
def test_repeated_report_is_the_next_one_of_the_same_boot_and_agent(other: tuple[int, str, str]) -> None:
    before = device(report_seq=7, boot_id="boot", agent="1.0")
    assert is_repeated_report(before, 9, "boot", "1.0")
    assert not is_repeated_report(before, *other)
    assert not is_repeated_report(device(report_seq=7, agent="1.0"), 9, "", "1.0")
