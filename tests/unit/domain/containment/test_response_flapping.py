"""A posture that flaps does not flap the containment, and who comes back stays longer; shadow rules only look on."""

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


def test_a_release_takes_so_many_passing_reports_in_a_row_and_so_long() -> None:
    play = given(device(), SETTLING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 10).then_nothing()
    play = play.when(beat(), at=START + 20).then_nothing()
    assert play.state.case is not None
    assert play.state.case.passing == 2
    play = play.when(beat(), at=START + 30).then_nothing()  # three, but not for long enough
    play.when(beat(), at=START + 70).then(ReleaseClient("", "d1", ""))


def test_one_failing_report_in_between_begins_the_count_anew() -> None:
    play = given(device(), SETTLING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), reported(passing=("telnet",), seq=3), at=START + 100)
    play = play.when(reported("telnet", seq=4), at=START + 110).then_nothing()
    assert play.state.case is not None
    assert play.state.case.passing == 0
    play = play.when(reported(passing=("telnet",), seq=5), at=START + 120).then_nothing()
    play = play.when(beat(), beat(), at=START + 179).then_nothing()
    play.when(beat(), at=START + 180).then(ReleaseClient("", "d1", ""))


def test_a_device_that_settles_is_not_quiet() -> None:
    play = given(device(), SETTLING).when(reported("telnet")).when(reported(passing=("telnet",), seq=2))
    assert not play.state.rules
    assert not is_no_change_heartbeat(play.state, DIGEST, SETTLING)


def _again(play: Play, at: float, seq: int) -> Play:
    """Contained by `docker`, proven, stepped down when its time is over, and free."""
    play = play.when(reported("docker", seq=seq, event_id=f"r{seq}"), at=at)
    case = play.state.case
    assert case is not None
    assert case.isolate_until is not None
    play = play.when(ev.ContainmentProven("p", case.case_id, ContainmentLevel.ISOLATED, at, ()))
    play = play.when(ev.DeadlineReached("t"), at=case.isolate_until)
    return play.when(reported(passing=("docker",), seq=seq + 1), at=case.isolate_until)


def test_repeat_offenders_stay_longer_and_in_the_end_it_is_forgotten() -> None:
    play = given(device(), REPEATING)
    lasted = []
    for number, at in enumerate((START, START + 150, START + 400, START + 5000)):
        begun = play.when(reported("docker", seq=10 * number + 1, event_id="probe"), at=at).state.case
        assert begun is not None
        assert begun.isolate_until is not None
        lasted.append(begun.isolate_until - at)
        play = _again(play, at, 10 * number + 1)
        assert play.state.case is None
    assert lasted == [100.0, 200.0, 350.0, 100.0]
    assert len(play.state.offences) == 4


def test_the_cool_down_of_repeat_offenders_is_longer_too() -> None:
    earlier = replace(device(), offences=(START - 10,))
    play = given(earlier, REPEATING).when(reported("telnet"))
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 10)
    play = play.when(beat(), at=START + 61).then_nothing()
    play.when(beat(), at=START + 110).then(ReleaseClient("", "d1", ""))


def test_who_fails_again_after_an_isolation_was_served_is_a_repeat_offender() -> None:
    play = given(device(), REPEATING).when(reported("docker"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 100)
    play = play.when(reported("docker", seq=2), at=START + 300)
    assert play.state.case is not None
    assert play.state.case.isolate_until == START + 300 + 200
    assert len(play.state.offences) == 2


def test_nothing_grows_beyond_what_it_was_when_that_is_the_most() -> None:
    assert RepeatOffenderTerms(10.0, 2.0, 5.0).extend(7.0, (START, START), START) == 7.0


SHADOWED = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=Remedy("rescan"), grace=5.0), shadow=True),
    rule("docker", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
)


def test_a_shadow_rule_is_judged_and_nothing_follows() -> None:
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


def test_a_rule_that_went_into_shadow_mode_holds_nobody() -> None:
    enforced = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)), rule("docker"))
    play = given(device(), enforced).when(reported("telnet"))
    freed = replace(play, policies=SHADOWED).when(reported("telnet", seq=2))
    assert freed.state.case is None


def test_protected_devices_wait_with_an_alert_each() -> None:
    enforced = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))
    for protection, mine in (
        (ProtectionRules(frozenset({"d1"})), device()),
        (ProtectionRules(tags=frozenset({"life"})), device(tags=("life",))),
        (ProtectionRules(), device(predicates=(PROTECTED_PREDICATE,))),
    ):
        guards = FleetGuards(protection=protection)
        event = replace(reported("telnet"), predicates=mine.predicates)
        outcome = step(mine, event, START, enforced, guards)
        assert outcome.device.case is None
        assert outcome.device.pending is not None
        assert outcome.device.pending.why is HoldReason.PROTECTED
        (line,) = [entry for entry in outcome.audit if entry.kind == AuditKind.CONTAINMENT_DEFERRED]
        assert line.alert
        through = step(outcome.device, ev.ContainmentApproved("a", "operator:ada", "yes"), START, enforced, guards)
        assert through.device.level is ContainmentLevel.RESTRICTED
    assert ProtectionRules().protection_reason(device()) == ""
