"""The one entry of every decision about a device: `(device, event, now) -> (device', effects, audit)`. Pure.

The containment levels of a device:

    none        not contained
    restricted  it reaches its own Cordon topics and nothing else
    isolated    restricted, banned and disconnected

Who may change the level. A policy needs a rule that is due, fresh evidence from a sender that the broker authenticates,
and the admission of the fleet's guards (blast radius, protection, waivers):

    none       -> restricted  a policy, an operator
    none       -> isolated    a policy, an operator, a revoked certificate
    restricted -> isolated    a policy (not during the probation after an isolation), an operator, a revoked certificate
    isolated   -> restricted  the end of its time, an operator, a new certificate after a revocation
    restricted -> none        an operator, or a fresh report: without an open cause, answering the nonce, after any hold
    any        -> previous    the broker, if it cannot authenticate the reporter behind a policy's unproven decision

Invariants (tests/property/test_containment.py):

- The same event stepped twice gives the same outcome, with the same effect ids; ids are never used twice.
- A policy contains only for a rule that is due now, and not within the pause after a refusal.
- A released device passed: no cause is open, no operator holds it. Isolation never goes straight to none.
- Every change of the level has its effect; an isolation by policy has an end; a passed deadline changes something.
- `unknown` and `error` never satisfy a rule.

A device reports a failing rule and is restricted:

>>> from controller.domain.events import PostureReported
>>> from controller.domain.policy.cel import CelEnvironment
>>> from controller.domain.policy.findings import Finding, RuleResult, Severity
>>> from controller.domain.policy.model import ContainmentLevel, Policy, PolicyRule, RuleResponse
>>> check = CelEnvironment({"firewall_active": "bool"}).compile("firewall_active")
>>> response = RuleResponse(contain=ContainmentLevel.RESTRICTED)
>>> rule = PolicyRule("base/firewall", "A firewall is active", check, Severity.HIGH, response=response)
>>> policies = PolicySet((Policy("base", 1, "Baseline", (rule,)),), "v1")
>>> findings = (Finding(rule.key, RuleResult.FAIL),)
>>> report = PostureReported("e1", 1, "sha256:ab", "boot-1", "1.0", 5.0, findings, "v1")
>>> outcome = step(Device("edge-17", first_seen=0.0, last_seen=0.0), report, 5.0, policies)
>>> outcome.device.level.value, [type(effect).__name__ for effect in outcome.effects]
('restricted', ['RestrictClient'])
>>> [entry.kind.value for entry in outcome.audit]
['report.first_accepted', 'report.posture_changed', 'containment.decided']
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.domain import commands, reports
from controller.domain import events as ev
from controller.domain.containment import (
    admission,
    broker_results,
    cases,
    deadlines,
    device_events,
    operator_requests,
    report_signatures,
    revocation,
)
from controller.domain.device import Device
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.identity import clones
from controller.domain.policy.model import PolicySet
from controller.domain.transition import StepOutcome, Transition

HANDLERS: Final[Mapping[type[ev.DomainEvent], Callable[[Transition, Any], None]]] = {
    # from the device
    ev.PostureReported: reports.on_posture_reported,
    ev.HeartbeatReceived: reports.on_heartbeat,
    ev.StatusChanged: reports.on_status_changed,
    ev.DeviceEventReported: device_events.on_device_event,
    ev.CommandReported: commands.on_command_reported,
    # time
    ev.DeviceWentStale: reports.on_device_stale,
    ev.DeadlineReached: deadlines.on_deadline_reached,
    # from operators; commands also from rollouts
    ev.ContainmentOrdered: operator_requests.on_containment_ordered,
    ev.ReleaseOrdered: operator_requests.on_release_ordered,
    ev.ContainmentApproved: cases.on_containment_approved,
    ev.ContainmentDismissed: admission.on_containment_dismissed,
    ev.CommandRequested: commands.on_command_requested,
    ev.CommandCountersigned: commands.on_command_countersigned,
    ev.CommandWithdrawn: commands.on_command_withdrawn,
    ev.DeviceEnrolled: reports.on_device_enrolled,
    ev.DeviceLabelled: reports.on_device_labelled,
    ev.SignatureRequirementLifted: report_signatures.on_signature_requirement_lifted,
    # from the broker
    ev.ReporterAuthenticated: broker_results.on_reporter_authenticated,
    ev.ContainmentProven: broker_results.on_containment_proven,
    ev.ContainmentFailed: broker_results.on_containment_failed,
    ev.ContainmentPartlyProven: broker_results.on_containment_partly_proven,
    ev.ContainmentRefused: broker_results.on_containment_refused,
    ev.ReleaseProven: broker_results.on_release_proven,
    ev.DriftDetected: broker_results.on_drift_detected,
    ev.CommandDelivered: commands.on_command_delivered,
    ev.CloneSuspected: clones.on_clone_suspected,
    # from the certificate authority
    ev.CertificateRevoked: revocation.on_certificate_revoked,
    ev.CertificateRenewed: revocation.on_certificate_renewed,
}


def step(
    device: Device, event: ev.DomainEvent, now: float, policies: PolicySet, guards: FleetGuards = NO_GUARDS
) -> StepOutcome:
    """Returns what `event` makes of `device` at `now` (Unix seconds) under `policies`, within the fleet's `guards`.

    Raises:
        TypeError: the event is not a `DomainEvent`.
    """
    handler = HANDLERS.get(type(event))
    if handler is None:
        raise TypeError(f"no handler for {type(event).__name__}")
    transition = Transition(device, event.event_id, now, policies, guards)
    handler(transition, event)
    return transition.to_outcome()
