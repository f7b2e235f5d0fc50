"""Results of containment at the broker: proofs, failures, refusals, drift."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.broker_results import LATER_PAUSE, REFUSAL_PAUSE
from controller.domain.effects import RestrictClient
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from tests.support.playbook import START, Play, beat, device, given, isolate, policies, reported, restrict, rule

RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)),
)


def restricted() -> Play:
    return given(device(), RULES).when(reported("telnet"))


def test_first_proof_of_a_level_measures_the_time_to_the_cut() -> None:
    failed = ev.ContainmentFailed("w", "r", "restrict", "no answer", ())
    play = restricted().when(failed).recorded(AuditKind.CONTAINMENT_FAILED)
    assert play.case.trouble == "no answer"
    proven = ev.ContainmentProven("p", "r", ContainmentLevel.RESTRICTED, START + 2, ({"step": "rules"},))
    play = play.when(proven, at=START + 3)
    assert play.audit[0].detail is not None
    assert play.audit[0].detail["seconds"] == 2.0
    case = play.case
    assert (case.proven_level, case.proven_at, case.trouble) == (ContainmentLevel.RESTRICTED, START + 3, "")
    play = play.when(ev.ContainmentProven("q", "r", ContainmentLevel.RESTRICTED, START + 9, ()))
    assert play.audit[0].detail is not None
    assert play.audit[0].detail["seconds"] is None


@pytest.mark.parametrize(
    ("case_id", "level"), [("other", ContainmentLevel.RESTRICTED), ("r", ContainmentLevel.ISOLATED)]
)
def test_proof_of_another_case_or_level_proves_nothing(case_id: str, level: ContainmentLevel) -> None:
    play = restricted().when(ev.ContainmentProven("p", case_id, level, START, ()))
    assert play.case.proven_level is ContainmentLevel.NONE


def test_failure_of_another_case_does_not_change_this_one() -> None:
    play = restricted().when(ev.ContainmentFailed("w", "other", "x", "y", ()))
    assert play.case.trouble == ""


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (ev.ReleaseProven("a", "c", ()), AuditKind.CONTAINMENT_RELEASE_PROVEN),
        (ev.DriftDetected("a", "c", "rules"), AuditKind.BROKER_DRIFT_FOUND),
        (ev.CommandDelivered("a", "k"), AuditKind.COMMAND_SENT),
        (ev.ContainmentRefused("a", "c", "claimed"), AuditKind.CONTAINMENT_REFUSED),
    ],
)
def test_result_without_a_case_in_force_is_only_recorded(event: ev.DomainEvent, kind: AuditKind) -> None:
    play = given(device()).when(event).then_nothing().recorded(kind)
    assert play.state == device()


def test_operators_restriction_is_repeated_when_a_later_isolation_is_refused() -> None:
    play = given(device(), RULES).when(ev.ContainmentOrdered("o", ContainmentLevel.RESTRICTED, "ada", "odd", None))
    play = play.when(reported("docker")).when(ev.ContainmentRefused("n", "o", "claimed"))
    play.then(RestrictClient("", "d1", "o", by_policy=False))
    assert play.state.level is ContainmentLevel.RESTRICTED


def test_refusal_ends_the_case_and_pauses_the_policy() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    assert play.state.case is None
    play.when(ev.DeadlineReached("t"), beat(), at=START + REFUSAL_PAUSE - 1).then_nothing()
    play.when(beat(), at=START + REFUSAL_PAUSE).then(restrict())


def test_refusal_of_a_later_session_pauses_only_shortly() -> None:
    refusal = ev.ContainmentRefused("n", "r", "later", by_a_later=True)
    play = given(device(), RULES).when(reported("telnet")).when(refusal)
    assert play.state.case is None
    play.when(beat(at=START + 4), at=START + LATER_PAUSE - 1).then_nothing()
    again = play.when(beat(at=START + LATER_PAUSE), at=START + LATER_PAUSE).then(restrict())
    assert again.case.evidence_since == START + LATER_PAUSE


def test_shorter_pause_does_not_replace_a_longer_one() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    play = play.when(replace(reported("telnet", seq=2), evidence=Evidence.SIGNED))
    play = play.when(ev.ContainmentRefused("n", "r", "later", by_a_later=True))
    assert play.state.refused_until == START + REFUSAL_PAUSE


def test_authentication_of_the_reporter_counts_for_its_own_message_only() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    authenticated = ev.ReporterAuthenticated("v", "r", Evidence.PASSWORD, START)
    assert play.when(authenticated).case.evidence is Evidence.PASSWORD
    play = play.when(reported("docker", seq=2, at=START + 5), at=START + 5)
    assert play.when(authenticated).case.evidence is Evidence.UNASKED, "the isolation rests on another message"


def test_refused_escalation_keeps_the_proven_restriction() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.RESTRICTED, START + 1, ()))
    play = play.when(reported("docker", seq=2)).when(ev.ContainmentRefused("n", "r", "claimed"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(beat(), at=START + REFUSAL_PAUSE - 1).then_nothing()
    later = START + REFUSAL_PAUSE
    play.when(beat(), at=later).then(isolate(later + 600, "fails p/docker"))


def test_proven_containment_survives_a_late_refusal() -> None:
    play = given(device(), RULES).when(reported("docker"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START + 1, ()))
    assert play.when(ev.ContainmentRefused("n", "r", "late")).state.case == play.case


def test_operators_case_is_not_refused() -> None:
    play = (
        given(device(), RULES)
        .when(reported("telnet"))
        .when(ev.ContainmentOrdered("o", ContainmentLevel.ISOLATED, "ada", "looks odd", None))
    )
    assert play.when(ev.ContainmentRefused("n", "r", "late")).state.case == play.case


def test_refusal_of_another_case_changes_nothing() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    assert play.when(ev.ContainmentRefused("n", "other", "late")).state == replace(play.state)
