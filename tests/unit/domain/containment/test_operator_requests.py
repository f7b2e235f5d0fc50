"""Containments and releases that operators request."""

from math import inf

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import EndIsolation, ReleaseClient
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from tests.support.playbook import START, beat, device, given, isolate, policies, reported, restrict, rule

RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0)),
)


def ordered(level: ContainmentLevel, hold: float | None = None, event_id: str = "o") -> ev.ContainmentOrdered:
    return ev.ContainmentOrdered(event_id, level, "ada", "looks odd", hold)


def test_operator_restricts_until_release() -> None:
    play = given(device(), RULES).when(ordered(ContainmentLevel.RESTRICTED)).then(restrict(by_policy=False))
    assert play.case.hold_until == inf
    play = play.when(reported(passing=("telnet",)), at=START + 10**9).then_nothing()
    play = play.when(ev.ReleaseOrdered("x", "ada", "fine")).then(ReleaseClient("", "d1", "o"))
    play.when(ev.ReleaseOrdered("y", "ada", "")).then_nothing().recorded(AuditKind.CONTAINMENT_NOT_IN_FORCE)


def test_heartbeat_releases_after_the_hold() -> None:
    play = given(device(), RULES).when(reported(passing=("telnet",))).when(ordered(ContainmentLevel.RESTRICTED, 100.0))
    play.when(beat(), at=START + 99).then_nothing()
    play.when(beat(), at=START + 100).then(ReleaseClient("", "d1", "o"))


@pytest.mark.parametrize("hold", [None, 60.0])
def test_operator_isolates_and_a_release_steps_down(hold: float | None) -> None:
    until = None if hold is None else START + hold
    play = (
        given(device(), RULES)
        .when(ordered(ContainmentLevel.ISOLATED, hold))
        .then(isolate(until, "looks odd", by_policy=False))
    )
    proven = play.when(ev.ContainmentProven("p", "o", ContainmentLevel.ISOLATED, START, ()))
    ended = proven.when(ev.ReleaseOrdered("x", "ada", "")).then(EndIsolation("", "d1", "o"))
    assert (ended.state.level, ended.case.hold_until) == (ContainmentLevel.RESTRICTED, 0.0)
    # Never seen to hold, it may not have cut anything, and what it writes over is not kept yet.
    play.when(ev.ReleaseOrdered("x", "ada", "")).then(restrict(by_policy=False), EndIsolation("", "d1", "o"))


def test_operator_takes_over_a_case_and_keeps_its_causes() -> None:
    play = given(device(), RULES).when(reported("telnet")).when(ordered(ContainmentLevel.ISOLATED, 60.0))
    assert (play.case.case_id, play.case.by, play.case.causes) == ("r", "ada", ("p/telnet",))


def test_operator_does_not_weaken_an_isolation() -> None:
    play = given(device(), RULES).when(reported("docker")).when(ordered(ContainmentLevel.RESTRICTED)).then_nothing()
    play.recorded(AuditKind.CONTAINMENT_KEPT)
    assert play.state.level is ContainmentLevel.ISOLATED


def test_policy_escalates_an_operators_case_only_for_an_authenticated_reporter() -> None:
    play = given(device(), RULES).when(ordered(ContainmentLevel.RESTRICTED))
    play = play.when(reported("docker")).then(isolate(START + 600, "fails p/docker", by_policy=True))
    play = play.when(ev.ContainmentRefused("n", "o", "claimed"))
    assert (play.state.level, play.case.isolate_until) == (ContainmentLevel.RESTRICTED, None)


def test_operators_hold_outlasts_an_isolation_by_policy() -> None:
    play = given(device(), RULES).when(ordered(ContainmentLevel.RESTRICTED)).when(reported("docker"))
    play = play.when(ev.DeadlineReached("t"), at=START + 600)
    assert play.case.hold_until == inf
    play.when(reported(passing=("docker",), seq=2), at=START + 601).then_nothing()


@pytest.mark.parametrize("below", [120.0, None])
def test_an_isolation_on_top_of_a_restriction_ends_alone(below: float | None) -> None:
    """`isolate --for 5s` after `restrict --for 2m` (or without an end) leaves the restriction its own end."""
    play = given(device(), RULES).when(reported(passing=("telnet",))).when(ordered(ContainmentLevel.RESTRICTED, below))
    play = play.when(ordered(ContainmentLevel.ISOLATED, 5.0), at=START + 1)
    play = play.when(ev.DeadlineReached("t"), at=START + 6)
    assert play.state.level is ContainmentLevel.RESTRICTED
    play = play.when(beat(), at=START + 119).then_nothing()
    assert play.state.level is ContainmentLevel.RESTRICTED
    play = play.when(beat(), at=START + 121)
    assert play.state.level is (ContainmentLevel.RESTRICTED if below is None else ContainmentLevel.NONE)


@pytest.mark.parametrize("holds", [(5.0,), (None,), (3600.0, 5.0), (None, 5.0)])
def test_a_release_of_an_isolation_leaves_the_restriction_below_its_hold(holds: tuple[float | None, ...]) -> None:
    play = given(device(), RULES).when(ordered(ContainmentLevel.RESTRICTED, 120.0))
    for hold in holds:
        play = play.when(ordered(ContainmentLevel.ISOLATED, hold), at=START + 1)
    play = play.when(ev.ReleaseOrdered("x", "ada", "found"), at=START + 2)
    assert (play.state.level, play.case.hold_until) == (ContainmentLevel.RESTRICTED, START + 120)


def test_a_new_certificate_leaves_the_restriction_below_a_revocation_its_hold() -> None:
    play = given(device(), RULES).when(ordered(ContainmentLevel.RESTRICTED))
    play = play.when(ev.CertificateRevoked("x", ("a1",), "ada", "stolen"), at=START + 1)
    play = play.when(ev.CertificateRenewed("y", START + 2), at=START + 2)
    assert (play.state.level, play.case.hold_until) == (ContainmentLevel.RESTRICTED, inf)
