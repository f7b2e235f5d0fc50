"""The blast radius of the fleet: what it allows, counts and refunds."""

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import HoldReason
from controller.domain.effects import ReleaseClient, RestrictClient
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.domain.step import step
from tests.support.playbook import START, device, policies, reported, rule

RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED)),
)
TIGHT = BlastRadius(BlastRadiusLimits(1, 100.0, 600.0))


@pytest.mark.parametrize(
    ("bounds", "fleet", "limit"),
    [
        (BlastRadiusLimits(50, 10.0), 1000, 50),
        (BlastRadiusLimits(50, 10.0), 99, 9),
        (BlastRadiusLimits(50, 10.0), 5, 1),
        (BlastRadiusLimits(None, 10.0), 10_000, 1000),
        (BlastRadiusLimits(3, 100.0), 5, 3),
        (BlastRadiusLimits(50, 10.0), 0, 1),
    ],
)
def test_limit_is_the_smaller_of_number_and_percentage(bounds: BlastRadiusLimits, fleet: int, limit: int) -> None:
    assert bounds.limit(fleet) == limit


def test_only_default_limits_are_unlimited() -> None:
    assert BlastRadiusLimits().is_unlimited
    assert not BlastRadiusLimits(10).is_unlimited
    assert not BlastRadiusLimits(None, 99.0).is_unlimited
    unlimited = BlastRadius()
    assert unlimited.charge("d1", START) is unlimited, "without a limit nothing is counted"


def test_devices_before_the_window_do_not_count() -> None:
    radius = TIGHT.charge("d1", START)
    assert not radius.allows("d2", 10, START + 599)
    assert radius.allows("d2", 10, START + 600)
    assert radius.charge("d2", START + 700).charged == {"d2": START + 700}


def test_device_counts_once_within_the_window() -> None:
    radius = TIGHT.charge("d1", START)
    assert radius.allows("d1", 10, START + 1)
    assert radius.charge("d1", START + 1) is radius
    assert radius.used(START + 1) == 1


def test_refund_allows_another_device() -> None:
    radius = TIGHT.charge("d1", START)
    assert radius.refund("d2") is radius
    assert radius.refund("d1").allows("d2", 10, START)


def test_any_pending_containment_holds_back_all_others() -> None:
    assert not BlastRadius(BlastRadiusLimits(100, 100.0), waiting=1).allows("d1", 100, START)


def _full() -> FleetGuards:
    return FleetGuards(TIGHT.charge("other", START), fleet=10)


def test_containment_beyond_the_limit_becomes_pending_with_one_alert() -> None:
    outcome = step(device(), reported("telnet"), START, RULES, _full())
    assert outcome.device.case is None
    assert not outcome.effects
    assert outcome.charge is None
    pending = outcome.device.pending
    assert pending is not None
    assert (pending.why, pending.level, pending.causes) == (
        HoldReason.BLAST_RADIUS,
        ContainmentLevel.RESTRICTED,
        ("p/telnet",),
    )
    kinds = {entry.kind: entry for entry in outcome.audit}
    assert kinds[AuditKind.GUARD_BLAST_RADIUS_REACHED].alert
    assert not kinds[AuditKind.CONTAINMENT_DEFERRED].alert
    assert (kinds[AuditKind.GUARD_BLAST_RADIUS_REACHED].detail or {})["limit"] == 1
    second = step(
        device(), reported("telnet"), START, RULES, FleetGuards(BlastRadius(TIGHT.bounds, TIGHT.charged, 1), fleet=10)
    )
    assert AuditKind.GUARD_BLAST_RADIUS_REACHED not in {entry.kind for entry in second.audit}
    again = step(outcome.device, reported("telnet", seq=2), START + 1, RULES, _full())
    assert again.device.pending == pending
    assert not [entry for entry in again.audit if entry.kind is AuditKind.CONTAINMENT_DEFERRED], "recorded once"


def test_containment_is_charged_and_a_refused_one_refunded() -> None:
    outcome = step(device(), reported("telnet"), START, RULES, FleetGuards(TIGHT, fleet=10))
    assert outcome.charge is True
    refused = step(
        outcome.device, ev.ContainmentRefused("n", "r", "claimed"), START, RULES, FleetGuards(TIGHT, fleet=10)
    )
    assert refused.charge is False
    assert refused.device.offences == ()


def test_pending_containment_ends_when_the_device_passes_or_becomes_stale() -> None:
    pending_device = step(device(), reported("telnet"), START, RULES, _full()).device
    passed = step(pending_device, reported(passing=("telnet",), seq=2), START + 1, RULES, _full())
    assert passed.device.pending is None
    assert AuditKind.CONTAINMENT_PENDING_CLEARED in {entry.kind for entry in passed.audit}
    silent = step(pending_device, ev.DeviceWentStale("s", 300.0), START + 300, RULES, _full())
    assert silent.device.pending is None


def test_operator_approves_a_pending_containment() -> None:
    pending_device = step(device(), reported("telnet"), START, RULES, _full()).device
    outcome = step(pending_device, ev.ContainmentApproved("a", "operator:ada", "yes"), START + 5, RULES, _full())
    case = outcome.device.case
    assert case is not None
    assert (case.by, case.approved_by, case.causes) == ("policy", "operator:ada", ("p/telnet",))
    assert outcome.charge is None, "an approved containment is not automatic"
    assert [type(effect) for effect in outcome.effects] == [RestrictClient]
    freed = step(outcome.device, reported(passing=("telnet",), seq=2), START + 9, RULES, _full())
    assert [type(effect) for effect in freed.effects] == [ReleaseClient]


def test_operator_approves_the_isolation_of_a_restricted_device() -> None:
    restricted = step(device(), reported("telnet"), START, RULES, FleetGuards(TIGHT, fleet=10)).device
    pending_device = step(restricted, reported("telnet", "docker", seq=2), START + 1, RULES, _full()).device
    assert pending_device.level is ContainmentLevel.RESTRICTED
    assert pending_device.pending is not None
    approved = step(pending_device, ev.ContainmentApproved("a", "operator:ada", "yes"), START + 2, RULES, _full())
    assert approved.device.level is ContainmentLevel.ISOLATED


def test_approval_contains_only_what_the_rules_still_require() -> None:
    nothing = step(device(), ev.ContainmentApproved("a", "operator:ada", "yes"), START, RULES, _full())
    assert [entry.kind for entry in nothing.audit] == [AuditKind.CONTAINMENT_NO_PENDING]
    pending_device = step(device(), reported("telnet"), START, RULES, _full()).device
    gone = policies(rule("other"))
    outcome = step(pending_device, ev.ContainmentApproved("a", "operator:ada", "yes"), START, gone, _full())
    assert outcome.device.case is None
    assert outcome.device.pending is None


def test_dismissal_holds_until_the_causes_pass_or_more_is_required() -> None:
    pending_device = step(device(), reported("telnet"), START, RULES, _full()).device
    dismissed = step(pending_device, ev.ContainmentDismissed("n", "operator:ada", "no"), START, RULES, _full()).device
    assert dismissed.pending is not None
    assert (dismissed.pending.why, dismissed.pending.by) == (HoldReason.DISMISSED, "operator:ada")
    free = FleetGuards(TIGHT, fleet=10)
    assert step(dismissed, reported("telnet", seq=2), START + 1, RULES, free).device.case is None
    assert step(dismissed, reported("docker", seq=2), START + 1, RULES, free).device.level is ContainmentLevel.ISOLATED
    passed = step(dismissed, reported(passing=("telnet",), seq=2), START + 1, RULES, free).device
    assert passed.pending is None
    assert step(passed, reported("telnet", seq=3), START + 2, RULES, free).device.level is ContainmentLevel.RESTRICTED
    silent = step(dismissed, ev.DeviceWentStale("s", 300.0), START + 300, RULES, free).device
    assert silent.pending == dismissed.pending
    twice = step(dismissed, ev.ContainmentDismissed("n", "operator:bob", "no"), START, RULES, free)
    assert [entry.kind for entry in twice.audit] == [AuditKind.CONTAINMENT_NO_PENDING]


def test_operators_containment_replaces_the_pending_one() -> None:
    pending_device = step(device(), reported("telnet"), START, RULES, _full()).device
    ordered = ev.ContainmentOrdered("o", ContainmentLevel.RESTRICTED, "operator:ada", "now", None)
    outcome = step(pending_device, ordered, START, RULES, _full())
    assert outcome.device.pending is None
    assert outcome.device.level is ContainmentLevel.RESTRICTED
