"""How cases open, grow, step down and end."""

from dataclasses import replace
from math import inf

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.commands import RESEND_AFTER
from controller.domain.containment.cases import LATER_PAUSE, PROBATION, REFUSAL_PAUSE
from controller.domain.containment.response import MAX_REMEDIES, REMEDY_PAUSE, deadline
from controller.domain.device import ContainmentCase
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient, SendCommand
from controller.domain.evidence import Evidence
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from controller.domain.step import step
from tests.support.playbook import START, Play, beat, device, given, policies, reported, rule

REPAIR = Remedy("service.disable", (("name", "telnetd"),))
RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("old", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)),
    rule("repairable", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=REPAIR)),
    rule("note"),
)


def case_of(play: Play) -> ContainmentCase:
    assert play.state.case is not None
    return play.state.case


def restrict(by_policy: bool = True) -> RestrictClient:
    return RestrictClient("", "d1", "", by_policy)


def isolate(until: float | None, reason: str, by_policy: bool = True) -> IsolateClient:
    return IsolateClient("", "d1", "", by_policy, until, reason)


def by_hand(level: ContainmentLevel, hold: float | None = None, event_id: str = "o") -> ev.ContainmentOrdered:
    return ev.ContainmentOrdered(event_id, level, "ada", "looks odd", hold)


def test_a_failing_rule_restricts_and_a_fresh_report_releases() -> None:
    play = given(device(), RULES).when(reported("telnet")).then(RestrictClient("r-0", "d1", "r", True))
    assert case_of(play).causes == ("p/telnet",)
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 9).then(ReleaseClient("", "d1", "r"))
    assert play.state.case is None
    assert play.outcome is not None
    assert play.outcome.audit[-1].detail == {"reason": "a fresh report passes", "contained_seconds": 9.0}


def test_a_finding_without_a_response_contains_nobody() -> None:
    given(device(), RULES).when(reported("note")).then_nothing()


def test_the_same_failure_again_asks_for_nothing_new() -> None:
    given(device(), RULES).when(reported("telnet")).when(reported("telnet", seq=2)).then_nothing()


def test_a_new_cause_has_to_pass_too() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(reported("telnet", "old", seq=2)).then_nothing()
    assert case_of(play).causes == ("p/telnet", "p/old")
    play = play.when(reported("old", passing=("telnet",), seq=3)).then_nothing()
    play.when(reported(passing=("telnet", "old"), seq=4)).then(ReleaseClient("", "d1", ""))


def test_a_critical_rule_isolates_for_its_time_and_then_steps_down() -> None:
    play = given(device(), RULES).when(reported("docker")).then(isolate(START + 600, "fails p/docker"))
    play.when(ev.DeadlineReached("t"), at=START + 599).then_nothing()
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 600).then(EndIsolation("", "d1", "r"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    assert case_of(play).probation_until == START + 600 + PROBATION


def test_within_its_probation_a_device_is_not_isolated_again() -> None:
    play = given(device(), RULES).when(reported("docker")).when(ev.DeadlineReached("t"), at=START + 600)
    play = play.when(reported("docker", seq=2), at=START + 610).then_nothing()
    later = START + 600 + PROBATION
    play.when(beat(), at=later).then(isolate(later + 600, "fails p/docker"))


def test_a_restriction_escalates() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    play = play.when(reported("telnet", "docker", seq=2)).then(isolate(START + 600, "fails p/telnet, p/docker"))
    assert case_of(play).causes == ("p/telnet", "p/docker")


def test_an_isolated_device_is_never_freed_by_a_report() -> None:
    given(device(), RULES).when(reported("docker")).when(reported(passing=("docker",), seq=2)).then_nothing()


def test_an_operator_restricts_until_released() -> None:
    play = given(device(), RULES).when(by_hand(ContainmentLevel.RESTRICTED)).then(restrict(by_policy=False))
    assert case_of(play).hold_until == inf
    play = play.when(reported(passing=("telnet",)), at=START + 10**9).then_nothing()
    play = play.when(ev.ReleaseOrdered("x", "ada", "fine")).then(ReleaseClient("", "d1", "o"))
    play.when(ev.ReleaseOrdered("y", "ada", "")).then_nothing().recorded(AuditKind.CONTAINMENT_NOT_IN_FORCE)


def test_a_hold_that_is_over_lets_a_heartbeat_release() -> None:
    play = given(device(), RULES).when(reported(passing=("telnet",))).when(by_hand(ContainmentLevel.RESTRICTED, 100.0))
    play.when(beat(), at=START + 99).then_nothing()
    play.when(beat(), at=START + 100).then(ReleaseClient("", "d1", "o"))


@pytest.mark.parametrize("hold", [None, 60.0])
def test_an_operator_isolates_and_release_steps_down(hold: float | None) -> None:
    until = None if hold is None else START + hold
    play = (
        given(device(), RULES)
        .when(by_hand(ContainmentLevel.ISOLATED, hold))
        .then(isolate(until, "looks odd", by_policy=False))
    )
    proven = play.when(ev.ContainmentProven("p", "o", ContainmentLevel.ISOLATED, START, ()))
    ended = proven.when(ev.ReleaseOrdered("x", "ada", "")).then(EndIsolation("", "d1", "o"))
    assert (ended.state.level, case_of(ended).hold_until) == (ContainmentLevel.RESTRICTED, 0.0)
    # Never seen to hold, it may not have cut anything, and what it writes over is not kept yet.
    play.when(ev.ReleaseOrdered("x", "ada", "")).then(restrict(by_policy=False), EndIsolation("", "d1", "o"))


def test_an_operator_takes_a_case_over_and_keeps_its_causes() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(by_hand(ContainmentLevel.ISOLATED, 60.0))
    assert (case_of(play).case_id, case_of(play).by, case_of(play).causes) == ("r", "ada", ("p/telnet",))


def test_an_operator_does_not_weaken_an_isolation() -> None:
    play = given(device(), RULES).when(reported("docker")).when(by_hand(ContainmentLevel.RESTRICTED)).then_nothing()
    play.recorded(AuditKind.CONTAINMENT_KEPT)
    assert play.state.level is ContainmentLevel.ISOLATED


def test_a_policy_takes_an_operators_case_further_only_for_a_vouched_identity() -> None:
    play = given(device(), RULES).when(by_hand(ContainmentLevel.RESTRICTED))
    play = play.when(reported("docker")).then(isolate(START + 600, "fails p/docker", by_policy=True))
    play = play.when(ev.ContainmentRefused("n", "o", "claimed"))
    assert (play.state.level, case_of(play).isolate_until) == (ContainmentLevel.RESTRICTED, None)


def test_what_an_operator_holds_outlasts_an_isolation_by_policy() -> None:
    play = given(device(), RULES).when(by_hand(ContainmentLevel.RESTRICTED)).when(reported("docker"))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    assert case_of(play).hold_until == inf
    play.when(reported(passing=("docker",), seq=2), at=START + 601).then_nothing()


def test_a_repair_is_sent_with_the_containment_and_a_bounded_number_of_times() -> None:
    play = given(device(), RULES).when(reported("repairable"))
    assert [type(effect) for effect in play.effects] == [RestrictClient, SendCommand]
    sent = 1
    for number in range(1, 10):
        now = START + number * (REMEDY_PAUSE + 3600)
        play = play.when(ev.DeadlineReached(f"t{number}"), at=now)
        sent += sum(isinstance(effect, SendCommand) for effect in play.effects)
        play = play.when(beat(at=now, event_id=f"h{number}"))
        sent += sum(isinstance(effect, SendCommand) for effect in play.effects)
    assert sent == MAX_REMEDIES


def test_a_repair_under_way_is_not_asked_for_twice_but_may_be_sent_again() -> None:
    play = given(device(), RULES).when(reported("repairable"))
    (sent,) = play.state.commands
    play.when(beat(at=START + RESEND_AFTER - 1), at=START + RESEND_AFTER - 1).then_nothing()
    play = play.when(beat(at=START + RESEND_AFTER), at=START + RESEND_AFTER)
    (again,) = play.effects
    assert isinstance(again, SendCommand)
    assert (again.command_id, again.counter) == (sent.command_id, sent.counter)
    play.when(beat(at=START + REMEDY_PAUSE - 1), at=START + REMEDY_PAUSE - 1).then_nothing()


def test_who_steps_down_before_anybody_vouched_is_restricted_by_policy_first() -> None:
    play = given(device(), RULES).when(reported("docker"))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    play.then(RestrictClient("", "d1", "r", by_policy=True), EndIsolation("", "d1", "r"))
    assert play.when(ev.ContainmentRefused("n", "r", "claimed")).state.case is None


def test_what_an_operator_asked_for_is_asked_for_again_when_the_isolation_above_it_is_refused() -> None:
    play = given(device(), RULES).when(ev.ContainmentOrdered("o", ContainmentLevel.RESTRICTED, "ada", "odd", None))
    play = play.when(reported("docker")).when(ev.ContainmentRefused("n", "o", "claimed"))
    play.then(RestrictClient("", "d1", "o", by_policy=False))
    assert play.state.level is ContainmentLevel.RESTRICTED


def test_no_repair_is_sent_to_an_isolated_device_but_when_it_steps_down() -> None:
    play = given(device(), RULES).when(reported("docker", "repairable"))
    assert [type(effect) for effect in play.effects] == [IsolateClient]
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    assert [type(effect) for effect in play.effects] == [EndIsolation, SendCommand]


def test_a_refused_containment_ends_the_case_and_is_not_tried_again_at_once() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    assert play.state.case is None
    play.when(ev.DeadlineReached("t"), beat(), at=START + REFUSAL_PAUSE - 1).then_nothing()
    play.when(beat(), at=START + REFUSAL_PAUSE).then(restrict())


def test_who_proved_itself_but_came_later_is_listened_to_again_soon() -> None:
    refusal = ev.ContainmentRefused("n", "r", "later", by_a_later=True)
    play = given(device(), RULES).when(reported("telnet")).when(refusal)
    assert play.state.case is None
    play.when(beat(at=START + 4), at=START + LATER_PAUSE - 1).then_nothing()
    again = play.when(beat(at=START + LATER_PAUSE), at=START + LATER_PAUSE).then(restrict())
    assert case_of(again).heard_at == START + LATER_PAUSE


def test_a_longer_pause_is_not_cut_short_by_a_shorter_one() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    play = play.when(replace(reported("telnet", seq=2), evidence=Evidence.SIGNED))
    play = play.when(ev.ContainmentRefused("n", "r", "later", by_a_later=True))
    assert play.state.refused_until == START + REFUSAL_PAUSE


def test_a_signature_counts_whatever_was_refused_before() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    signed = replace(reported("telnet", seq=2), evidence=Evidence.SIGNED)
    play.when(signed, at=START + 1).then(replace(restrict(), evidence=Evidence.SIGNED))


def test_time_alone_rests_on_the_words_of_the_report() -> None:
    slow = policies(rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, grace=60.0)))
    play = given(device(), slow).when(reported("slow")).when(ev.DeadlineReached("t"), at=START + 60).then(restrict())
    assert (case_of(play).heard_at, case_of(play).evidence_at) == (START, START + 60)
    play = play.when(ev.ContainmentRefused("n", "t", "later", by_a_later=True))
    later = START + 60 + LATER_PAUSE
    assert deadline(play.state, slow) is None, "the same words would be refused again"
    assert play.when(ev.DeadlineReached("t2"), at=later).then_nothing().state.case is None
    play = play.when(beat(at=later), at=later).then(restrict())
    assert case_of(play).heard_at == later


def test_an_approval_rests_on_when_the_device_was_heard() -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(1, 100.0, 600.0)).charge("d2", START), fleet=10)
    held = step(device(), reported("telnet"), START, RULES, guards).device
    approved = step(held, ev.ContainmentApproved("a", "ada", "go on"), START + 500, RULES, guards).device
    assert approved.case is not None
    assert approved.case.heard_at == START


def test_a_word_of_the_broker_counts_for_the_words_it_was_asked_about() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    vouched = ev.ReporterAuthenticated("v", "r", Evidence.PASSWORD, START)
    assert case_of(play.when(vouched)).evidence is Evidence.PASSWORD
    play = play.when(reported("docker", seq=2, at=START + 5), at=START + 5)
    assert case_of(play.when(vouched)).evidence is Evidence.UNASKED, "the isolation rests on another message"


def test_a_refused_escalation_keeps_the_proven_restriction() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.RESTRICTED, START + 1, ()))
    play = play.when(reported("docker", seq=2)).when(ev.ContainmentRefused("n", "r", "claimed"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(beat(), at=START + REFUSAL_PAUSE - 1).then_nothing()
    later = START + REFUSAL_PAUSE
    play.when(beat(), at=later).then(isolate(later + 600, "fails p/docker"))


def test_a_proven_containment_survives_a_late_refusal() -> None:
    play = given(device(), RULES).when(reported("docker"))
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START + 1, ()))
    assert play.when(ev.ContainmentRefused("n", "r", "late")).state.case == case_of(play)


def test_an_operators_case_is_not_refused() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(by_hand(ContainmentLevel.ISOLATED))
    assert play.when(ev.ContainmentRefused("n", "r", "late")).state.case == case_of(play)


def test_a_refusal_of_another_case_changes_nothing() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    assert play.when(ev.ContainmentRefused("n", "other", "late")).state == replace(play.state)


def test_two_rules_that_ask_for_the_same_repair_get_one_command() -> None:
    twice = policies(rule("port", RuleResponse(remedy=REPAIR)), rule("unit", RuleResponse(remedy=REPAIR)))
    play = given(device(), twice).when(reported("port", "unit"))
    assert [command.rule for command in play.state.commands] == ["p/port"]
