"""What follows from events: counted, held for their time, dismissed by an operator, vouched for like reports."""

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


def about(name: str, when: str, response: RuleResponse | None = None, **terms: float) -> PolicyRule:
    return replace(
        rule(name, response, event=EventTerms(**terms)),
        check=event_language().compile(when),
    )


def set_of(
    *events: PolicyRule,
    rules: tuple[PolicyRule, ...] = (rule("posture", RuleResponse(contain=ContainmentLevel.RESTRICTED)),),
) -> PolicySet:
    return PolicySet((Policy("p", 1, "Tests", rules, events=events),), "v1")


RULES = set_of(
    about("attack", 'event.rank >= 4 && event.monitor != ""', RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    about(
        "guess",
        'event.kind == "login_failed"',
        RuleResponse(ContainmentLevel.RESTRICTED, SCAN, consecutive=5),
        within=60,
        hold=300,
    ),
    about("worm", 'event.signature == "worm"', RuleResponse(ContainmentLevel.ISOLATED, isolate_for=600), hold=600),
)


def message(kind: str = "intrusion.snort", severity: str = "critical", count: int = 1, **detail: str) -> DeviceEvent:
    return DeviceEvent.model_validate(
        {
            "device_id": "d1", "kind": kind, "severity": severity, "count": count, "summary": "it did",
            "detail": detail, "at": "2026-11-26T00:00:00Z",
        }
    )  # fmt: skip


def told(*names: str, count: int = 1, at: float = START, event_id: str = "t", **detail: str) -> ev.DeviceEventReported:
    findings = tuple(Finding(f"p/{name}", RuleResult.FAIL) for name in names)
    return ev.DeviceEventReported(
        event_id, "login_failed", "high", count, "it did", tuple(detail.items()), at, findings
    )


def test_an_event_restricts_for_its_time_and_then_a_fresh_report_releases() -> None:
    play = given(device(), RULES).when(told("attack")).then(RestrictClient("t-0", "d1", "t", by_policy=True))
    assert play.state.case is not None
    assert play.state.case.causes == ("p/attack",)
    assert next_deadline(play.state, RULES) == START + 3600
    # A report that passes cannot undo what happened, a heartbeat no more.
    play = play.when(reported(passing=("posture",)), at=START + 60).then_nothing()
    play = play.when(beat(at=START + 120), at=START + 120).then_nothing()
    assert play.state.satisfied == 1
    play = play.when(ev.DeadlineReached("w"), at=START + 3600).then_nothing().recorded(AuditKind.EVENT_HOLD_EXPIRED)
    assert play.state.level is ContainmentLevel.RESTRICTED
    play = play.when(beat(at=START + 3700), at=START + 3700).then(ReleaseClient("", "d1", "t"))
    assert play.state.rules == {}


def test_the_release_of_a_device_that_an_event_holds_answers_with_the_release() -> None:
    play = given(device(), RULES).when(told("attack")).when(ev.ReleaseOrdered("o", "operator:ada", "checked"))
    play.recorded(AuditKind.EVENT_HOLD_DISMISSED, AuditKind.CONTAINMENT_RELEASE_DECIDED)
    play.decided(DecisionKind.RELEASED)


def test_a_report_that_fails_keeps_it_restricted_beyond_the_events_time() -> None:
    play = given(device(), RULES).when(told("attack")).when(reported("posture"), at=START + 60)
    play = (
        play.when(ev.DeadlineReached("w"), at=START + 3600).when(beat(at=START + 3700), at=START + 3700).then_nothing()
    )
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(reported(passing=("posture",), seq=2), at=START + 3800).then(ReleaseClient("", "d1", "t"))


def test_events_are_counted_within_their_time() -> None:
    play = given(device(), RULES).when(told("guess", count=4)).then_nothing()
    state = play.state.rules["p/guess"]
    assert (state.result, state.streak, state.until) == (RuleResult.INFORMATIONAL, 4, START + 60)
    # Too late: counting begins anew.
    play = play.when(told("guess", count=2), at=START + 61).then_nothing()
    assert play.state.rules["p/guess"].streak == 2
    play = play.when(told("guess", count=3, source="10.0.0.9"), at=START + 70)
    assert [type(effect) for effect in play.effects] == [RestrictClient, SendCommand]
    state = play.state.rules["p/guess"]
    assert (state.result, state.streak, state.until) == (RuleResult.FAIL, 5, START + 370)
    assert state.detail == "5 of login_failed from 10.0.0.9: it did"


def test_what_is_only_counted_is_forgotten_without_a_word() -> None:
    play = given(device(), RULES).when(told("guess")).when(ev.DeadlineReached("w"), at=START + 60)
    assert play.state.rules == {}
    play.recorded()


def test_another_event_makes_it_stand_longer() -> None:
    play = given(device(), RULES).when(told("attack")).when(told("attack"), at=START + 1000).then_nothing()
    assert play.state.rules["p/attack"].until == START + 4600


def test_an_isolation_steps_down_when_its_time_is_over() -> None:
    play = given(device(), RULES).when(told("worm"))
    play = play.then(IsolateClient("t-0", "d1", "t", True, START + 600, "fails p/worm"))
    play = play.when(ev.ContainmentProven("p", "t", ContainmentLevel.ISOLATED, START, ()))
    play = play.when(ev.DeadlineReached("w"), at=START + 600).then(EndIsolation("", "d1", "t"))
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(reported(passing=("posture",)), at=START + 700).then(ReleaseClient("", "d1", "t"))


def test_an_operator_who_releases_has_dealt_with_the_events() -> None:
    play = given(device(), RULES).when(told("worm")).when(ev.ReleaseOrdered("o", "ada", "false alarm"), at=START + 9)
    play.recorded(AuditKind.EVENT_HOLD_DISMISSED, AuditKind.CONTAINMENT_STEPPED_DOWN)
    play = play.when(reported(passing=("posture",)), at=START + 500).then(ReleaseClient("", "d1", "t"))
    play.when(beat(at=START + 501), at=START + 501).then_nothing()


def test_nothing_that_is_merely_claimed_contains_for_an_event_either() -> None:
    play = given(device(), RULES).when(told("attack")).when(ev.ContainmentRefused("x", "t", "no certificate"))
    assert play.state.case is None
    play.when(told("attack", event_id="t2"), at=START + 10).then_nothing()


def test_a_report_does_not_lend_its_proof_to_an_event_that_was_told_before() -> None:
    play = given(device(), RULES).when(told("attack")).when(ev.ContainmentRefused("x", "t", "no certificate"))
    later = START + 400
    signed = replace(reported(passing=("posture",), at=later), evidence=Evidence.SIGNED)
    assert play.when(signed, at=later).then_nothing().state.case is None

    # What is not refused yet, because it waits, is no better.
    waits = given(device(refused_until=START + 60), RULES).when(told("attack"))
    late = waits.when(replace(signed, received_at=START + 90), at=START + 90)
    assert late.state.case is not None
    assert (late.state.case.evidence_since, late.state.case.evidence) == (START, Evidence.UNASKED)


def test_of_events_that_are_counted_the_first_has_to_be_vouched_for_too() -> None:
    play = given(device(), RULES).when(told("guess", count=4))
    play = play.when(told("guess", at=START + 30), at=START + 30)
    assert play.state.case is not None
    assert (play.state.case.evidence_since, play.state.case.evidence_at) == (START, START + 30)


def test_the_record_says_which_rules_and_what_could_not_be_decided() -> None:
    undecided = Finding("p/worm", RuleResult.UNKNOWN, "the event has no event.signature")
    event = replace(told("guess", source="10.0.0.9"), findings=(Finding("p/guess", RuleResult.FAIL), undecided))
    play = given(device(), RULES).when(event)
    assert play.outcome is not None
    assert play.outcome.audit[0].detail == {
        "event_kind": "login_failed", "severity": "high", "count": 1, "summary": "it did", "evidence": "unasked",
        "source": "10.0.0.9", "rules": ["p/guess"], "undecided": {"p/worm": "the event has no event.signature"},
    }  # fmt: skip


def test_a_rule_that_is_no_longer_in_force_asks_for_nothing() -> None:
    play = given(device(), set_of()).when(told("attack")).then_nothing()
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
def test_judging(event: DeviceEvent, broken: list[str]) -> None:
    found = evaluate_event(RULES.policies, event_facts(event, "d1"))
    assert [f"{one.rule} {one.result.value}" for one in found] == broken


def test_a_policy_of_another_class_is_not_asked() -> None:
    scope = event_language().compile('device.class == "lab"')
    rules = set_of(replace(about("attack", "event.rank >= 4"), applies_if=scope))
    assert evaluate_event(rules.policies, event_facts(message(), "d1")) == ()
    assert len(evaluate_event(rules.policies, event_facts(message(), "d1", "lab"))) == 1


def test_events_alone_are_no_policy() -> None:
    with pytest.raises(EmptyPolicyError, match="would pass every report"):
        set_of(about("attack", "event.rank >= 4"), rules=())


def test_an_event_explained() -> None:
    attack, guess, worm = explain_event(RULES.policies, event_facts(message(first_at="now"), "d1"))
    assert (attack.result, guess.result, worm.result) == (RuleResult.FAIL, RuleResult.PASS, RuleResult.UNKNOWN)
    assert [(one.name, one.value) for one in attack.facts] == [("event.monitor", "snort"), ("event.rank", "4")]
    assert [(one.name, one.missing) for one in worm.facts] == [("event.signature", "not part of the event")]


def test_how_rules_about_events_stand() -> None:
    rules: dict[str, Any] = {"p/guess": RuleState(RuleResult.INFORMATIONAL, START, 2, "2 of x", until=START + 60)}
    held: Device = device(rules=rules)
    found = {one.rule: one for one in explain_active_holds(RULES, held)}
    assert (found["p/guess"].result, found["p/guess"].until) == (RuleResult.INFORMATIONAL, START + 60)
    assert (found["p/attack"].result, found["p/attack"].until) == (RuleResult.PASS, 0.0)


def test_long_and_listed_facts_are_shown_within_bounds() -> None:
    rules = set_of(about("a", '"x" in event.detail || device.tags.size() > 9 || event.summary == ""'))
    (one,) = explain_event(rules.policies, event_facts(message(note="n" * 500), "d1", tags=("a", "b")))
    shown = {fact.name: fact.value or "" for fact in one.facts}
    assert shown["device.tags"] == "a, b"
    assert shown["event.detail"].startswith("note=nnn")
    assert len(shown["event.detail"]) == 300
