"""Rules about device events: counting, holds, dismissal, authentication of the sender, explanation."""

from dataclasses import replace
from typing import Any

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment.deadlines import next_deadline
from controller.domain.containment.explain_events import explain_active_holds, explain_event
from controller.domain.device import Device, RuleState
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient, SendCommand
from controller.domain.evidence import Evidence
from controller.domain.policy.event_rules import evaluate_event, event_facts, event_language
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import (
    ContainmentLevel,
    EmptyPolicyError,
    EventTerms,
    Policy,
    PolicyRule,
    PolicySet,
    Remedy,
    RuleResponse,
)
from schemas.events import DeviceEvent
from tests.support.playbook import START, beat, device, given, reported, rule

SCAN = Remedy("scan.run", (("tool", "lynis"),))


def event_rule(name: str, when: str, response: RuleResponse | None = None, **terms: float) -> PolicyRule:
    return replace(
        rule(name, response, event=EventTerms(**terms)),
        check=event_language().compile(when),
    )


def policy_set(
    *events: PolicyRule,
    rules: tuple[PolicyRule, ...] = (rule("posture", RuleResponse(contain=ContainmentLevel.RESTRICTED)),),
) -> PolicySet:
    return PolicySet((Policy("p", 1, "Tests", rules, events=events),), "v1")


RULES = policy_set(
    event_rule("attack", 'event.rank >= 4 && event.monitor != ""', RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    event_rule(
        "guess",
        'event.kind == "login_failed"',
        RuleResponse(ContainmentLevel.RESTRICTED, SCAN, consecutive=5),
        within=60,
        hold=300,
    ),
    event_rule("worm", 'event.signature == "worm"', RuleResponse(ContainmentLevel.ISOLATED, isolate_for=600), hold=600),
)


def message(kind: str = "intrusion.snort", severity: str = "critical", count: int = 1, **detail: str) -> DeviceEvent:
    return DeviceEvent.model_validate(
        {
            "device_id": "d1", "kind": kind, "severity": severity, "count": count, "summary": "it did",
            "detail": detail, "at": "2026-11-26T00:00:00Z",
        }
    )  # fmt: skip


def happened(
    *names: str, count: int = 1, at: float = START, event_id: str = "t", **detail: str
) -> ev.DeviceEventReported:
    findings = tuple(Finding(f"p/{name}", RuleResult.FAIL) for name in names)
    return ev.DeviceEventReported(
        event_id, "login_failed", "high", count, "it did", tuple(detail.items()), at, findings
    )


def test_event_restricts_until_its_hold_ends_and_a_fresh_report_releases() -> None:
    play = given(device(), RULES).when(happened("attack")).then(RestrictClient("t-0", "d1", "t", by_policy=True))
    assert play.case.causes == ("p/attack",)
    assert next_deadline(play.state, RULES) == START + 3600
    # Neither a passing report nor a heartbeat ends the hold.
    play = play.when(reported(passing=("posture",)), at=START + 60).then_nothing()
    play = play.when(beat(at=START + 120), at=START + 120).then_nothing()
    assert play.state.satisfied == 1
    play = play.when(ev.DeadlineReached("w"), at=START + 3600).then_nothing().recorded(AuditKind.EVENT_HOLD_EXPIRED)
    assert play.state.level is ContainmentLevel.RESTRICTED
    play = play.when(beat(at=START + 3700), at=START + 3700).then(ReleaseClient("", "d1", "t"))
    assert play.state.rules == {}


def test_release_of_a_device_with_an_event_hold_is_answered_as_released() -> None:
    play = given(device(), RULES).when(happened("attack")).when(ev.ReleaseOrdered("o", "operator:ada", "checked"))
    play.recorded(AuditKind.EVENT_HOLD_DISMISSED, AuditKind.CONTAINMENT_RELEASE_DECIDED)
    play.decided(DecisionKind.RELEASED)


def test_failing_report_keeps_the_restriction_after_the_hold() -> None:
    play = given(device(), RULES).when(happened("attack")).when(reported("posture"), at=START + 60)
    play = (
        play.when(ev.DeadlineReached("w"), at=START + 3600).when(beat(at=START + 3700), at=START + 3700).then_nothing()
    )
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(reported(passing=("posture",), seq=2), at=START + 3800).then(ReleaseClient("", "d1", "t"))


def test_events_are_counted_within_their_period() -> None:
    play = given(device(), RULES).when(happened("guess", count=4)).then_nothing()
    state = play.state.rules["p/guess"]
    assert (state.result, state.streak, state.until) == (RuleResult.INFORMATIONAL, 4, START + 60)
    # The period is over: counting restarts.
    play = play.when(happened("guess", count=2), at=START + 61).then_nothing()
    assert play.state.rules["p/guess"].streak == 2
    play = play.when(happened("guess", count=3, source="10.0.0.9"), at=START + 70)
    assert [type(effect) for effect in play.effects] == [RestrictClient, SendCommand]
    state = play.state.rules["p/guess"]
    assert (state.result, state.streak, state.until) == (RuleResult.FAIL, 5, START + 370)
    assert state.detail == "5 of login_failed from 10.0.0.9: it did"


def test_expired_count_is_not_recorded() -> None:
    play = given(device(), RULES).when(happened("guess")).when(ev.DeadlineReached("w"), at=START + 60)
    assert play.state.rules == {}
    play.recorded()


def test_further_event_extends_the_hold() -> None:
    play = given(device(), RULES).when(happened("attack")).when(happened("attack"), at=START + 1000).then_nothing()
    assert play.state.rules["p/attack"].until == START + 4600


def test_isolation_by_an_event_steps_down_when_its_time_is_over() -> None:
    play = given(device(), RULES).when(happened("worm"))
    play = play.then(IsolateClient("t-0", "d1", "t", True, START + 600, "fails p/worm"))
    play = play.when(ev.ContainmentProven("p", "t", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("w"), at=START + 600).then(EndIsolation("", "d1", "t"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(reported(passing=("posture",)), at=START + 700).then(ReleaseClient("", "d1", "t"))


def test_operators_release_dismisses_event_holds() -> None:
    play = (
        given(device(), RULES).when(happened("worm")).when(ev.ReleaseOrdered("o", "ada", "false alarm"), at=START + 9)
    )
    play.recorded(AuditKind.EVENT_HOLD_DISMISSED, AuditKind.CONTAINMENT_STEPPED_DOWN)
    play = play.when(reported(passing=("posture",)), at=START + 500).then(ReleaseClient("", "d1", "t"))
    play.when(beat(at=START + 501), at=START + 501).then_nothing()


def test_unauthenticated_event_contains_no_device() -> None:
    play = given(device(), RULES).when(happened("attack")).when(ev.ContainmentRefused("x", "t", "no certificate"))
    assert play.state.case is None
    play.when(happened("attack", event_id="t2"), at=START + 10).then_nothing()


def test_signed_report_does_not_authenticate_an_earlier_event() -> None:
    play = given(device(), RULES).when(happened("attack")).when(ev.ContainmentRefused("x", "t", "no certificate"))
    later = START + 400
    signed = replace(reported(passing=("posture",), at=later), evidence=Evidence.SIGNED)
    assert play.when(signed, at=later).then_nothing().state.case is None

    # The same holds for an event that has not been refused yet.
    waits = given(device(refused_until=START + 60), RULES).when(happened("attack"))
    late = waits.when(replace(signed, received_at=START + 90), at=START + 90)
    assert (late.case.evidence_since, late.case.evidence) == (START, Evidence.UNASKED)


def test_first_of_several_counted_events_has_to_be_authenticated() -> None:
    play = given(device(), RULES).when(happened("guess", count=4))
    play = play.when(happened("guess", at=START + 30), at=START + 30)
    assert (play.case.evidence_since, play.case.evidence_at) == (START, START + 30)


def test_audit_has_broken_and_undecided_rules() -> None:
    undecided = Finding("p/worm", RuleResult.UNKNOWN, "the event has no event.signature")
    event = replace(happened("guess", source="10.0.0.9"), findings=(Finding("p/guess", RuleResult.FAIL), undecided))
    play = given(device(), RULES).when(event)
    assert play.audit[0].detail == {
        "event_kind": "login_failed", "severity": "high", "count": 1, "summary": "it did", "evidence": "unasked",
        "source": "10.0.0.9", "rules": ["p/guess"], "undecided": {"p/worm": "the event has no event.signature"},
    }  # fmt: skip


def test_rule_that_is_no_longer_in_force_has_no_response() -> None:
    play = given(device(), policy_set()).when(happened("attack")).then_nothing()
    assert play.state.rules == {}


@pytest.mark.parametrize(
    ("event", "broken"),
    [
        (message(), ["p/attack fail", "p/worm unknown"]),
        (message("login_failed", "low", signature="x"), ["p/guess fail"]),
        (message("intrusion.snort", "low", signature="worm"), ["p/worm fail"]),
        (message("other", "info", signature=""), []),
    ],
)
def test_findings_of_an_event(event: DeviceEvent, broken: list[str]) -> None:
    findings = evaluate_event(RULES.policies, event_facts(event, "d1"))
    assert [f"{finding.rule} {finding.result.value}" for finding in findings] == broken


def test_rule_of_another_class_does_not_apply() -> None:
    scope = event_language().compile('device.class == "lab"')
    rules = policy_set(replace(event_rule("attack", "event.rank >= 4"), applies_if=scope))
    assert evaluate_event(rules.policies, event_facts(message(), "d1")) == ()
    assert len(evaluate_event(rules.policies, event_facts(message(), "d1", "lab"))) == 1


def test_policy_needs_rules_about_reports() -> None:
    with pytest.raises(EmptyPolicyError, match="would pass every report"):
        policy_set(event_rule("attack", "event.rank >= 4"), rules=())


def test_explanation_of_an_event() -> None:
    attack, guess, worm = explain_event(RULES.policies, event_facts(message(first_at="now"), "d1"))
    assert (attack.result, guess.result, worm.result) == (RuleResult.FAIL, RuleResult.PASS, RuleResult.UNKNOWN)
    assert [(fact.name, fact.value) for fact in attack.facts] == [("event.monitor", "snort"), ("event.rank", "4")]
    assert [(fact.name, fact.missing) for fact in worm.facts] == [("event.signature", "not part of the event")]


def test_explanation_of_active_holds() -> None:
    rules: dict[str, Any] = {"p/guess": RuleState(RuleResult.INFORMATIONAL, START, 2, "2 of x", until=START + 60)}
    held: Device = device(rules=rules)
    explanations = {each.rule: each for each in explain_active_holds(RULES, held)}
    assert (explanations["p/guess"].result, explanations["p/guess"].until) == (RuleResult.INFORMATIONAL, START + 60)
    assert (explanations["p/attack"].result, explanations["p/attack"].until) == (RuleResult.PASS, 0.0)


def test_facts_of_an_explanation_are_bounded() -> None:
    rules = policy_set(event_rule("a", '"x" in event.detail || device.tags.size() > 9 || event.summary == ""'))
    (explanation,) = explain_event(rules.policies, event_facts(message(note="n" * 500), "d1", tags=("a", "b")))
    shown = {fact.name: fact.value or "" for fact in explanation.facts}
    assert shown["device.tags"] == "a, b"
    assert shown["event.detail"].startswith("note=nnn")
    assert len(shown["event.detail"]) == 300
