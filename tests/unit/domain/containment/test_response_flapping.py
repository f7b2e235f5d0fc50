"""Flapping postures, repeat offenders, shadow rules and protected devices."""

from dataclasses import replace

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import HoldReason
from controller.domain.effects import ReleaseClient
from controller.domain.guards.guards import PROTECTED_PREDICATE, FleetGuards, ProtectionRules
from controller.domain.policy.model import ContainmentLevel, Remedy, RepeatOffenderTerms, RuleResponse
from controller.domain.reports import is_no_change_heartbeat
from controller.domain.step import step
from tests.support.playbook import DIGEST, START, Play, beat, device, given, policies, reported, rule

SETTLING = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED, passing=3, cool_down=60.0)))
REPEATING = policies(
    rule(
        "docker",
        RuleResponse(
            contain=ContainmentLevel.ISOLATED, isolate_for=100.0, repeat=RepeatOffenderTerms(1000.0, 2.0, 350.0)
        ),
    ),
    rule(
        "telnet",
        RuleResponse(
            contain=ContainmentLevel.RESTRICTED, cool_down=50.0, repeat=RepeatOffenderTerms(1000.0, 2.0, 350.0)
        ),
    ),
)


def test_release_needs_enough_passing_reports_in_a_row_for_long_enough() -> None:
    play = given(device(), SETTLING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 10).then_nothing()
    play = play.when(beat(), at=START + 20).then_nothing()
    assert play.case.passing == 2
    play = play.when(beat(), at=START + 30).then_nothing()  # three, but not for long enough
    play.when(beat(), at=START + 70).then(ReleaseClient("", "d1", ""))


def test_failing_report_restarts_the_count_of_passing_reports() -> None:
    play = given(device(), SETTLING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), reported(passing=("telnet",), seq=3), at=START + 100)
    play = play.when(reported("telnet", seq=4), at=START + 110).then_nothing()
    assert play.case.passing == 0
    play = play.when(reported(passing=("telnet",), seq=5), at=START + 120).then_nothing()
    play = play.when(beat(), beat(), at=START + 179).then_nothing()
    play.when(beat(), at=START + 180).then(ReleaseClient("", "d1", ""))


def test_heartbeat_of_a_device_before_its_release_is_a_change() -> None:
    play = given(device(), SETTLING).when(reported("telnet")).when(reported(passing=("telnet",), seq=2))
    assert not play.state.rules
    assert not is_no_change_heartbeat(play.state, DIGEST, SETTLING)


def _contain_and_release(play: Play, at: float, seq: int) -> Play:
    """Isolates by `docker`, proves it, steps down at its end and releases."""
    play = play.when(reported("docker", seq=seq, event_id=f"r{seq}"), at=at)
    case = play.state.case
    assert case is not None
    assert case.isolate_until is not None
    play = play.when(ev.ContainmentProven("p", case.case_id, ContainmentLevel.ISOLATED, at, ()))
    play = play.when(ev.DeadlineReached("t"), at=case.isolate_until)
    return play.when(reported(passing=("docker",), seq=seq + 1), at=case.isolate_until)


def test_isolation_is_extended_for_repeat_offenders_within_a_time() -> None:
    play = given(device(), REPEATING)
    durations = []
    for number, at in enumerate((START, START + 150, START + 400, START + 5000)):
        case = play.when(reported("docker", seq=10 * number + 1, event_id="probe"), at=at).state.case
        assert case is not None
        assert case.isolate_until is not None
        durations.append(case.isolate_until - at)
        play = _contain_and_release(play, at, 10 * number + 1)
        assert play.state.case is None
    assert durations == [100.0, 200.0, 350.0, 100.0]
    assert len(play.state.offences) == 4


def test_cool_down_is_extended_for_repeat_offenders() -> None:
    earlier = replace(device(), offences=(START - 10,))
    play = given(earlier, REPEATING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 10)
    play = play.when(beat(), at=START + 61).then_nothing()
    play.when(beat(), at=START + 110).then(ReleaseClient("", "d1", ""))


def test_failure_after_an_isolation_counts_as_a_repetition() -> None:
    play = given(device(), REPEATING).when(reported("docker"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 100)
    play = play.when(reported("docker", seq=2), at=START + 300)
    assert play.case.isolate_until == START + 300 + 200
    assert len(play.state.offences) == 2


def test_duration_above_the_maximum_is_not_extended() -> None:
    assert RepeatOffenderTerms(10.0, 2.0, 5.0).extend(7.0, (START, START), START) == 7.0


SHADOWED = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=Remedy("rescan"), grace=5.0), shadow=True),
    rule("docker", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
)


def test_shadow_rule_is_recorded_without_a_response() -> None:
    play = (
        given(device(), SHADOWED)
        .when(reported("telnet"))
        .then_nothing()
        .recorded(AuditKind.REPORT_FIRST_ACCEPTED, AuditKind.REPORT_POSTURE_CHANGED)
    )
    assert "p/telnet" in play.state.rules
    assert next_deadline(play.state, SHADOWED) is None
    play.when(ev.DeadlineReached("t"), at=START + 1000).then_nothing()
    assert SHADOWED.rules["p/telnet"].mode == "shadow"
    assert SHADOWED.rules["p/docker"].mode == "enforce"


def test_rule_in_shadow_mode_keeps_no_device_contained() -> None:
    enforced = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)), rule("docker"))
    play = given(device(), enforced).when(reported("telnet"))
    freed = replace(play, policies=SHADOWED).when(reported("telnet", seq=2))
    assert freed.state.case is None


def test_containment_of_a_protected_device_becomes_pending_with_an_alert() -> None:
    enforced = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))
    for protection, state in (
        (ProtectionRules(frozenset({"d1"})), device()),
        (ProtectionRules(tags=frozenset({"life"})), device(tags=("life",))),
        (ProtectionRules(), device(predicates=(PROTECTED_PREDICATE,))),
    ):
        guards = FleetGuards(protection=protection)
        event = replace(reported("telnet"), predicates=state.predicates)
        outcome = step(state, event, START, enforced, guards)
        assert outcome.device.case is None
        assert outcome.device.pending is not None
        assert outcome.device.pending.why is HoldReason.PROTECTED
        (deferred,) = [entry for entry in outcome.audit if entry.kind == AuditKind.CONTAINMENT_DEFERRED]
        assert deferred.alert
        approved = step(outcome.device, ev.ContainmentApproved("a", "operator:ada", "yes"), START, enforced, guards)
        assert approved.device.level is ContainmentLevel.RESTRICTED
    assert ProtectionRules().protection_reason(device()) == ""
