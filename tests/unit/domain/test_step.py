"""Every event's way through the one entry."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import ContainmentCase, RuleState
from controller.domain.effects import RestrictClient, SendReceipt
from controller.domain.evolve import evolve
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.domain.step import is_quiet, repeats, step
from controller.domain.transition import StepOutcome
from schemas.commands import CommandState
from schemas.events import ReceiptVerdict, RejectReason
from tests.support.playbook import DIGEST, START, Play, beat, device, given, policies, reported, rule

OTHER = "sha256:" + "b" * 64
RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, consecutive=2, grace=60.0)),
)


def receipts(play: Play) -> list[SendReceipt]:
    assert play.outcome is not None
    return list(play.outcome.receipts)


def test_the_first_report_is_accepted_and_remembered() -> None:
    play = given(device(), RULES).when(reported(passing=("telnet", "slow"), at=START + 1)).then_nothing()
    play.recorded(AuditKind.REPORT_FIRST_ACCEPTED)
    assert receipts(play) == [SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, DIGEST)]
    state = play.state
    assert (state.report_seq, state.digest, state.reported_at, state.satisfied) == (1, DIGEST, START + 1, 2)
    assert (state.judged_by, state.agent, state.boot_id) == ("v1", "1.0", "boot")


def test_an_older_sequence_of_the_same_boot_is_rejected() -> None:
    play = given(device(), RULES).when(reported(seq=5)).when(reported("telnet", seq=4)).then_nothing()
    assert receipts(play) == [
        SendReceipt(
            "d1", 4, ReceiptVerdict.REJECTED, None, RejectReason.STALE_SEQUENCE, "report 5 was accepted already"
        )
    ]


def test_a_redelivered_report_is_accepted_again_and_changes_only_when_it_was_seen() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    again = play.when(reported("telnet", at=START + 3, event_id="again")).then_nothing().recorded()
    assert receipts(again) == [SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, DIGEST)]
    assert again.state.rules == play.state.rules
    assert again.state.last_seen == START + 3


def test_the_same_sequence_with_another_content_is_judged() -> None:
    given(device(), RULES).when(reported()).when(reported("telnet", digest=OTHER)).then(
        RestrictClient("", "d1", "", True)
    )


def test_what_was_reported_before_is_not_judged_again_but_counts() -> None:
    play = given(device(), RULES).when(reported("slow"))
    same = replace(reported(seq=2, at=START + 60, event_id="r2"), findings=None)
    play = play.when(same, at=START + 60).then(RestrictClient("", "d1", "", True))
    assert (play.state.report_seq, play.state.rules["p/slow"].streak) == (2, 2)
    assert (play.state.satisfied, play.state.judged_by) == (0, "v1")


def test_a_new_boot_may_count_from_the_start() -> None:
    play = given(device(), RULES).when(reported(seq=9)).when(reported(seq=1, boot_id="next"))
    play.recorded(AuditKind.REPORT_SEQUENCE_REGRESSED)
    assert play.state.report_seq == 1


def test_a_change_of_posture_is_recorded_once() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(reported("telnet", seq=2)).recorded()
    play = play.when(reported(passing=("telnet",), seq=3))
    assert play.outcome is not None
    assert play.outcome.audit[0].kind == AuditKind.REPORT_POSTURE_CHANGED
    assert play.outcome.audit[0].detail == {"seq": 3, "digest": DIGEST, "worse": {}, "better": ["p/telnet"]}


def test_a_heartbeat_of_unknown_content_asks_for_the_full_report() -> None:
    play = given(device(), RULES).when(beat()).then_nothing()
    assert receipts(play) == [SendReceipt("d1", 2, ReceiptVerdict.RESEND_FULL)]
    play = given(device(), RULES).when(reported()).when(beat(digest=OTHER)).then_nothing()
    assert receipts(play) == [SendReceipt("d1", 2, ReceiptVerdict.RESEND_FULL)]


def test_a_heartbeat_of_a_healthy_device_only_shows_that_it_is_there() -> None:
    play = given(device(), RULES).when(reported()).when(beat(at=START + 60)).then_nothing().recorded()
    assert receipts(play) == []
    assert play.state.last_seen == START + 60


def test_heartbeats_count_as_reports_in_a_row() -> None:
    play = given(device(), RULES).when(reported("slow")).then_nothing()
    play = play.when(beat(), at=START + 59).then_nothing()
    play.when(beat(), at=START + 60).then(RestrictClient("", "d1", "", True))


def test_a_heartbeat_judged_again_by_other_policies_contains_and_releases() -> None:
    fails, passes = (Finding("p/telnet", RuleResult.FAIL),), (Finding("p/telnet", RuleResult.PASS),)
    play = given(device(), RULES).when(reported(passing=("telnet",)))
    play = play.when(beat(findings=fails, judged_by="v2")).then(RestrictClient("", "d1", "h", True))
    assert play.state.judged_by == "v2"
    play = play.when(beat(findings=passes, judged_by="v3", event_id="h2"))
    assert play.state.case is None


def test_time_contains_when_the_grace_is_over_unless_the_device_is_silent() -> None:
    play = given(device(), RULES).when(reported("slow"), beat())
    play.when(ev.DeadlineReached("t"), at=START + 59).then_nothing()
    play.when(ev.DeadlineReached("t"), at=START + 60).then(RestrictClient("", "d1", "t", True))
    play.when(ev.DeviceWentStale("s", 300.0), ev.DeadlineReached("t"), at=START + 60).then_nothing()


def test_silence_is_recorded_and_ends_with_the_next_word() -> None:
    play = given(device(), RULES).when(reported()).when(ev.DeviceWentStale("s", 300.0)).recorded(AuditKind.DEVICE_STALE)
    assert play.state.stale
    for back in (beat(at=START + 400), reported(seq=2, at=START + 400)):
        heard = play.when(back).recorded(AuditKind.DEVICE_CONTACT_RESUMED)
        assert not heard.state.stale


def test_coming_and_going_is_recorded_once() -> None:
    play = given(device()).when(ev.StatusChanged("a", True, "boot")).recorded(AuditKind.DEVICE_ONLINE)
    play = play.when(ev.StatusChanged("b", True, "boot")).recorded()
    play = play.when(ev.StatusChanged("c", False, "")).recorded(AuditKind.DEVICE_OFFLINE)
    assert play.state.online is False


def test_what_a_device_tells_is_recorded() -> None:
    given(device()).when(ev.DeviceEventReported("a", "ids.alert", "high", 3, "scan")).recorded(
        AuditKind.DEVICE_EVENT_REPORTED
    )


def test_labels() -> None:
    play = given(device()).when(ev.DeviceLabelled("a", "lab", ("x", "y"), "ada")).recorded(AuditKind.DEVICE_LABELLED)
    assert (play.state.device_class, play.state.tags) == ("lab", ("x", "y"))


def test_proof_keeps_the_first_measure() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    play = play.when(ev.ContainmentFailed("w", "r", "restrict", "no answer", ())).recorded(AuditKind.CONTAINMENT_FAILED)
    assert play.state.case is not None
    assert play.state.case.trouble == "no answer"
    play = play.when(
        ev.ContainmentProven("p", "r", ContainmentLevel.RESTRICTED, START + 2, ({"step": "rules"},)), at=START + 3
    )
    assert play.outcome is not None
    assert play.outcome.audit[0].detail is not None
    assert play.outcome.audit[0].detail["seconds"] == 2.0
    case = play.state.case
    assert case is not None
    assert (case.proven_level, case.proven_at, case.trouble) == (ContainmentLevel.RESTRICTED, START + 3, "")
    play = play.when(ev.ContainmentProven("q", "r", ContainmentLevel.RESTRICTED, START + 9, ()))
    assert play.outcome is not None
    assert play.outcome.audit[0].detail is not None
    assert play.outcome.audit[0].detail["seconds"] is None


@pytest.mark.parametrize(
    ("case_id", "level"), [("other", ContainmentLevel.RESTRICTED), ("r", ContainmentLevel.ISOLATED)]
)
def test_proof_of_something_else_proves_nothing(case_id: str, level: ContainmentLevel) -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentProven("p", case_id, level, START, ()))
    assert play.state.case is not None
    assert play.state.case.proven_level is ContainmentLevel.NONE


def test_trouble_of_another_case_stays_off_this_one() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentFailed("w", "other", "x", "y", ()))
    assert play.state.case is not None
    assert play.state.case.trouble == ""


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (ev.ReleaseProven("a", "c", ()), AuditKind.CONTAINMENT_RELEASE_PROVEN),
        (ev.DriftDetected("a", "c", "rules"), AuditKind.BROKER_DRIFT_FOUND),
        (ev.CommandDelivered("a", "k"), AuditKind.COMMAND_SENT),
        (ev.ContainmentRefused("a", "c", "claimed"), AuditKind.CONTAINMENT_REFUSED),
    ],
)
def test_what_happened_at_the_broker_is_recorded(event: ev.DomainEvent, kind: AuditKind) -> None:
    play = given(device()).when(event).then_nothing().recorded(kind)
    assert play.state == device()


def test_commands_go_through() -> None:
    ordered = ev.CommandRequested("a", "rescan", (), "ada", 60.0, False)
    play = given(device()).when(ordered).recorded(AuditKind.COMMAND_ISSUED)
    told = ev.CommandReported("b", "a-c0", CommandState.SUCCEEDED, "", ())
    assert play.when(told).recorded(AuditKind.COMMAND_SUCCEEDED).state.commands == ()


@dataclass(frozen=True)
class Stranger:
    event_id: str = "x"


def test_something_that_is_no_event_is_refused() -> None:
    with pytest.raises(TypeError, match="no step for Stranger"):
        step(device(), Stranger(), START, RULES)  # type: ignore[arg-type] # the point of the test


def test_a_quiet_heartbeat_changes_nothing_but_the_time_of_contact() -> None:
    quiet = device(digest=DIGEST, judged_by="v1")
    assert is_quiet(quiet, DIGEST, policies(rule("a")))
    outcome = step(quiet, beat(at=START + 5), START + 5, policies(rule("a")))
    assert outcome == StepOutcome(evolve(quiet, last_seen=START + 5))


@pytest.mark.parametrize("after", [(7, "boot", "1.0"), (9, "", "1.0"), (9, "other", "1.0"), (9, "boot", "1.1")])
def test_a_report_repeats_only_as_the_next_of_the_same_run(after: tuple[int, str, str]) -> None:
    before = device(report_seq=7, boot_id="boot", agent="1.0")
    assert repeats(before, 9, "boot", "1.0")
    assert not repeats(before, *after)
    assert not repeats(device(report_seq=7, agent="1.0"), 9, "", "1.0")


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
def test_other_heartbeats_are_stepped(changes: dict[str, Any]) -> None:
    assert not is_quiet(device(**{"digest": DIGEST, "judged_by": "v1", **changes}), DIGEST, policies(rule("a")))
