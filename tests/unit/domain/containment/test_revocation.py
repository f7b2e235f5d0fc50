"""A device with a revoked certificate stays isolated until it has a new one."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment.cases import FOREVER
from controller.domain.containment.revocation import is_held_by_revocation
from controller.domain.device import REVOKED
from controller.domain.effects import EndIsolation, IsolateClient
from controller.domain.policy.model import ContainmentLevel
from tests.support.playbook import START, Play, device, given, reported

REVOKE = ev.CertificateRevoked("x", ("a1",), "operator:ada", "stolen")
RENEW = ev.CertificateRenewed("y", START + 5)


def revoked() -> Play:
    return given(device()).when(REVOKE)


def proven(play: Play) -> Play:
    return play.when(ev.ContainmentProven("p", "x", ContainmentLevel.ISOLATED, START, ()))


def test_revocation_isolates_without_end() -> None:
    play = (
        revoked().then(IsolateClient("x-0", "d1", "x", False, None, "stolen")).recorded(AuditKind.CERTIFICATE_REVOKED)
    )
    case = play.case
    assert (case.level, case.causes, case.hold_until, case.isolate_until) == (
        ContainmentLevel.ISOLATED,
        (REVOKED,),
        FOREVER,
        None,
    )
    assert play.audit[0].alert


@pytest.mark.parametrize(
    "event",
    [
        ev.ReleaseOrdered("o", "operator:bob", "please"),
        ev.ContainmentOrdered("o", ContainmentLevel.RESTRICTED, "operator:bob", "softer", 1.0),
        ev.ContainmentOrdered("o", ContainmentLevel.ISOLATED, "operator:bob", "shorter", 1.0),
    ],
)
def test_no_operator_releases_or_weakens_it(event: ev.DomainEvent) -> None:
    play = proven(revoked()).when(event).then_nothing().recorded(AuditKind.CERTIFICATE_REVOCATION_KEPT)
    assert is_held_by_revocation(play.decided(DecisionKind.REVOCATION_KEPT).state)
    play.when(ev.DeadlineReached("t"), at=START + 1e9).then_nothing()


def test_no_report_releases_it() -> None:
    play = proven(revoked()).when(reported(passing=("telnet",))).then_nothing()
    assert play.state.level is ContainmentLevel.ISOLATED


def test_new_certificate_steps_down_and_a_report_releases() -> None:
    play = proven(revoked()).when(RENEW).then(EndIsolation("y-0", "d1", "x"))
    play.recorded(AuditKind.CERTIFICATE_REVOCATION_RESOLVED, AuditKind.CONTAINMENT_STEPPED_DOWN)
    assert play.state.level is ContainmentLevel.RESTRICTED
    assert not is_held_by_revocation(play.state)
    assert play.when(reported(passing=("telnet",))).state.level is ContainmentLevel.NONE


def test_renewal_without_a_revocation_changes_nothing() -> None:
    given(device()).when(RENEW).then_nothing().recorded()


def test_case_in_force_is_kept_and_has_to_be_proven_again() -> None:
    operator = ev.ContainmentOrdered("o", ContainmentLevel.ISOLATED, "operator:bob", "odd", None)
    play = (
        given(device())
        .when(operator)
        .when(ev.ContainmentProven("p", "o", ContainmentLevel.ISOLATED, START, ()))
        .when(REVOKE)
    )
    case = play.case
    assert (case.case_id, case.proven_level) == ("o", ContainmentLevel.NONE)
    play.then(IsolateClient("x-0", "d1", "o", False, None, "stolen"))


def test_second_revocation_adds_no_cause() -> None:
    play = revoked().when(replace(REVOKE, event_id="z"))
    assert play.case.causes == (REVOKED,)
