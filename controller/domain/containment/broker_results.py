"""Results of containment at the broker: proven, failed, refused, drifted, released."""

from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.cases import POLICY, emit_containment
from controller.domain.device import ContainmentCase, PartialProof
from controller.domain.events import (
    ContainmentFailed,
    ContainmentPartlyProven,
    ContainmentProven,
    ContainmentRefused,
    DriftDetected,
    ReleaseProven,
    ReporterAuthenticated,
)
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition

REFUSAL_PAUSE: Final = 300.0  # seconds before a policy contains a device again whose reporter was not authenticated
LATER_PAUSE: Final = 5.0  # the same if the present session is authenticated but connected after the report


def on_containment_proven(transition: Transition, event: ContainmentProven) -> None:
    """Records the proof, and the seconds from the evidence to the cut the first time a level is proven."""
    case = _case_of(transition, event.case_id)
    seconds, cut_at = None, event.cut_at
    if case is not None and event.level is case.level:
        if case.unread and case.partial is not None and case.partial.cut_at:
            cut_at = case.partial.cut_at  # nothing was left to cut since; only a node had to be read
        elif event.cut_at and case.proven_level is not event.level:
            seconds = max(0.0, event.cut_at - case.evidence_at)
        transition.update_case(
            case,
            proven_level=event.level,
            proven_at=transition.now,
            trouble="",
            evidence=_stronger(case, event.evidence),
            partial=None,
            left_open=event.left_open,
        )
    transition.add_audit(
        AuditKind.CONTAINMENT_PROVEN,
        case_id=event.case_id,
        level=event.level.value,
        seconds=seconds,
        cut_at=cut_at or None,
        evidence_at=None if case is None else case.evidence_at,
        evidence=event.evidence.value,
        left_open=list(event.left_open),
        steps=list(event.steps),
    )


def on_containment_partly_proven(transition: Transition, event: ContainmentPartlyProven) -> None:
    """Records what was read back, and which running nodes could not be read; it will be tried again."""
    case = _case_of(transition, event.case_id)
    seconds = None
    if case is not None and event.level is case.level:
        if event.cut_at and not case.unread and not case.is_proven:
            seconds = max(0.0, event.cut_at - case.evidence_at)
        cut_at = case.partial.cut_at if case.unread and case.partial is not None else event.cut_at
        partial = PartialProof(event.level, cut_at, event.nodes)
        transition.update_case(
            case, trouble="", evidence=_stronger(case, event.evidence), partial=partial, left_open=event.left_open
        )
    transition.add_audit(
        AuditKind.CONTAINMENT_PARTLY_PROVEN,
        case_id=event.case_id,
        alert=True,
        level=event.level.value,
        seconds=seconds,
        cut_at=event.cut_at or None,
        evidence_at=None if case is None else case.evidence_at,
        evidence=event.evidence.value,
        unread=[{"node": node, "reason": reason} for node, reason in event.nodes],
        left_open=list(event.left_open),
        steps=list(event.steps),
    )


def _stronger(case: ContainmentCase, evidence: Evidence) -> Evidence:
    return max(case.evidence, evidence, key=lambda each: each.rank)


def on_containment_failed(transition: Transition, event: ContainmentFailed) -> None:
    """Records a failed attempt, which will be retried."""
    case = _case_of(transition, event.case_id)
    if case is not None:
        transition.update_case(case, trouble=event.trouble, partial=None)
    transition.add_audit(
        AuditKind.CONTAINMENT_FAILED,
        case_id=event.case_id,
        alert=True,
        what=event.what,
        trouble=event.trouble,
        steps=list(event.steps),
    )


def on_containment_refused(transition: Transition, event: ContainmentRefused) -> None:
    """Takes the policy's last decision back, because its reporter was not authenticated; what held before stays."""
    transition.add_audit(
        AuditKind.CONTAINMENT_REFUSED,
        case_id=event.case_id,
        alert=True,
        reason=event.reason,
        evidence=event.evidence.value,
    )
    case = _case_of(transition, event.case_id)
    if case is None:
        return
    device = transition.device
    pause = LATER_PAUSE if event.by_a_later else REFUSAL_PAUSE
    transition.update_device(refused_until=max(device.refused_until, transition.now + pause))
    if case.by != POLICY:
        return  # an operator has taken the case over, which needs no evidence
    # Event holds among the causes are dropped: a later report would depend on the same unauthenticated events.
    rules = device.rules
    transition.update_device(
        rules={key: state for key, state in rules.items() if not (state.until and key in case.causes)}
    )
    _take_back(transition, case)


def _take_back(transition: Transition, case: ContainmentCase) -> None:
    held_before = case.proven_level is not ContainmentLevel.NONE or transition.now < case.hold_until
    if not held_before:
        if case.charged:
            transition.charge = False
        offences = tuple(at for at in transition.device.offences if at != case.opened_at)
        transition.update_device(case=None, offences=offences)
    elif case.level is ContainmentLevel.ISOLATED and case.proven_level is not ContainmentLevel.ISOLATED:
        case = transition.update_case(case, level=ContainmentLevel.RESTRICTED, isolate_until=None)
        if case.proven_level is ContainmentLevel.NONE:
            # The isolation superseded an operator's restriction before that was carried out.
            emit_containment(transition, case, by_policy=False)


def on_reporter_authenticated(transition: Transition, event: ReporterAuthenticated) -> None:
    """Records how the broker authenticated the reporter, unless the case is based on other messages by now."""
    case = transition.device.case
    if case is not None and (case.case_id, case.by, case.evidence_since) == (event.case_id, POLICY, event.heard_at):
        transition.update_case(case, evidence=event.evidence)


def on_release_proven(transition: Transition, event: ReleaseProven) -> None:
    transition.add_audit(AuditKind.CONTAINMENT_RELEASE_PROVEN, case_id=event.case_id, steps=list(event.steps))


def on_drift_detected(transition: Transition, event: DriftDetected) -> None:
    transition.add_audit(AuditKind.BROKER_DRIFT_FOUND, case_id=event.case_id, alert=True, what=event.what)


def _case_of(transition: Transition, case_id: str) -> ContainmentCase | None:
    """Returns the case in force if it has this id."""
    case = transition.device.case
    return case if case is not None and case.case_id == case_id else None
