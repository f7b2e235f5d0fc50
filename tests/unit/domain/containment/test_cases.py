"""Cases open, escalate, step down and close."""

from dataclasses import replace

from controller.domain import events as ev
from controller.domain.commands import RESEND_AFTER
from controller.domain.containment.cases import PROBATION
from controller.domain.containment.response import MAX_REMEDIES, REMEDY_PAUSE
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient, SendCommand
from controller.domain.evidence import Evidence
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from controller.domain.step import step
from tests.support.playbook import START, beat, device, given, isolate, policies, reported, restrict, rule

REPAIR = Remedy("service.disable", (("name", "telnetd"),))
RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("old", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)),
    rule("repairable", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=REPAIR)),
    rule("note"),
)


def test_failing_rule_restricts_and_a_fresh_report_releases() -> None:
    play = given(device(), RULES).when(reported("telnet")).then(RestrictClient("r-0", "d1", "r", True))
    assert play.case.causes == ("p/telnet",)
    play = play.when(reported(passing=("telnet",), seq=2), at=START + 9).then(ReleaseClient("", "d1", "r"))
    assert play.state.case is None
    assert play.outcome is not None
    assert play.outcome.audit[-1].detail == {"reason": "a fresh report passes", "contained_seconds": 9.0}


def test_finding_without_a_response_contains_no_device() -> None:
    given(device(), RULES).when(reported("note")).then_nothing()


def test_repeated_failure_has_no_new_effect() -> None:
    given(device(), RULES).when(reported("telnet")).when(reported("telnet", seq=2)).then_nothing()


def test_new_cause_has_to_pass_before_the_release() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(reported("telnet", "old", seq=2)).then_nothing()
    assert play.case.causes == ("p/telnet", "p/old")
    play = play.when(reported("old", passing=("telnet",), seq=3)).then_nothing()
    play.when(reported(passing=("telnet", "old"), seq=4)).then(ReleaseClient("", "d1", ""))


def test_isolation_steps_down_when_its_time_is_over() -> None:
    play = given(device(), RULES).when(reported("docker")).then(isolate(START + 600, "fails p/docker"))
    play.when(ev.DeadlineReached("t"), at=START + 599).then_nothing()
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 600).then(EndIsolation("", "d1", "r"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    assert play.case.probation_until == START + 600 + PROBATION


def test_device_on_probation_is_not_isolated_again() -> None:
    play = given(device(), RULES).when(reported("docker")).when(ev.DeadlineReached("t"), at=START + 600)
    play = play.when(reported("docker", seq=2), at=START + 610).then_nothing()
    later = START + 600 + PROBATION
    play.when(beat(), at=later).then(isolate(later + 600, "fails p/docker"))


def test_restriction_escalates_to_an_isolation() -> None:
    play = given(device(), RULES).when(reported("telnet"))
    play = play.when(reported("telnet", "docker", seq=2)).then(isolate(START + 600, "fails p/telnet, p/docker"))
    assert play.case.causes == ("p/telnet", "p/docker")


def test_report_never_releases_an_isolated_device() -> None:
    given(device(), RULES).when(reported("docker")).when(reported(passing=("docker",), seq=2)).then_nothing()


def test_remedy_is_sent_with_the_containment_a_limited_number_of_times() -> None:
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


def test_open_remedy_is_not_issued_twice_but_sent_again() -> None:
    play = given(device(), RULES).when(reported("repairable"))
    (sent,) = play.state.commands
    play.when(beat(at=START + RESEND_AFTER - 1), at=START + RESEND_AFTER - 1).then_nothing()
    play = play.when(beat(at=START + RESEND_AFTER), at=START + RESEND_AFTER)
    (again,) = play.effects
    assert isinstance(again, SendCommand)
    assert (again.command_id, again.counter) == (sent.command_id, sent.counter)
    play.when(beat(at=START + REMEDY_PAUSE - 1), at=START + REMEDY_PAUSE - 1).then_nothing()


def test_unproven_isolation_is_restricted_by_policy_before_it_ends() -> None:
    play = given(device(), RULES).when(reported("docker"))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    play.then(RestrictClient("", "d1", "r", by_policy=True), EndIsolation("", "d1", "r"))
    assert play.when(ev.ContainmentRefused("n", "r", "claimed")).state.case is None


def test_isolated_device_gets_its_remedy_when_it_steps_down() -> None:
    play = given(device(), RULES).when(reported("docker", "repairable"))
    assert [type(effect) for effect in play.effects] == [IsolateClient]
    play = play.when(ev.ContainmentProven("p", "r", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    assert [type(effect) for effect in play.effects] == [EndIsolation, SendCommand]


def test_signed_report_contains_despite_an_earlier_refusal() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ev.ContainmentRefused("n", "r", "claimed"))
    signed = replace(reported("telnet", seq=2), evidence=Evidence.SIGNED)
    play.when(signed, at=START + 1).then(replace(restrict(), evidence=Evidence.SIGNED))


def test_approval_is_based_on_the_last_contact() -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(1, 100.0, 600.0)).charge("d2", START), fleet=10)
    held = step(device(), reported("telnet"), START, RULES, guards).device
    approved = step(held, ev.ContainmentApproved("a", "ada", "go on"), START + 500, RULES, guards).device
    assert approved.case is not None
    assert approved.case.evidence_since == START


def test_two_rules_with_the_same_remedy_get_one_command() -> None:
    twice = policies(rule("port", RuleResponse(remedy=REPAIR)), rule("unit", RuleResponse(remedy=REPAIR)))
    play = given(device(), twice).when(reported("port", "unit"))
    assert [command.rule for command in play.state.commands] == ["p/port"]
