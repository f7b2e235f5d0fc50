"""Previews what other policies would change for a device: the step of its next heartbeat, not stored."""

from dataclasses import dataclass, replace
from typing import Final

from controller.domain.containment.response import rules_without_response
from controller.domain.device import Device, HoldReason
from controller.domain.events import HeartbeatReceived
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicySet
from controller.domain.step import step

_EVENT: Final = "preview"


@dataclass(frozen=True, slots=True)
class ContainmentPreview:
    """A containment that would change.

    `later`: only after more failing reports or a grace period. `held`: why it would not be carried out: a protected
    device, or an operator who dismissed it.
    """

    device_id: str
    before: ContainmentLevel
    after: ContainmentLevel
    causes: tuple[str, ...]
    later: bool = False
    held: str = ""

    @property
    def contains(self) -> bool:
        """Whether policies alone would raise the level."""
        return self.after.rank > self.before.rank and not self.held


def preview_containment(
    device: Device,
    findings: tuple[Finding, ...],
    marks: tuple[str, ...],
    policies: PolicySet,
    guards: FleetGuards,
    now: float,
) -> ContainmentPreview | None:
    """Returns what `policies` would change, `None` for nothing; `findings` are those of the stored report.

    The blast radius is ignored, because the preview shows what it would have to hold back.
    """
    unlimited = replace(guards, radius=BlastRadius())
    event = HeartbeatReceived(
        _EVENT, device.report_seq, device.digest, now, findings, policies.version, predicates=marks
    )
    after = step(device, event, now, policies, unlimited).device
    pending = after.pending
    if pending is not None and pending.level.rank > after.level.rank:
        if device.pending is not None and device.pending.why is pending.why:
            return None  # held back already
        held = "dismissed" if pending.why is HoldReason.DISMISSED else pending.why.value
        return ContainmentPreview(device.device_id, device.level, pending.level, pending.causes, held=held)
    before = device.pending
    if (
        before is not None
        and before.why is HoldReason.BLAST_RADIUS
        and device.level.rank < after.level.rank <= before.level.rank
    ):
        return None  # pending already
    if after.level is not device.level:
        causes = after.case.causes if after.case is not None else ()
        return ContainmentPreview(device.device_id, device.level, after.level, causes)
    return _delayed_preview(device, after, policies, unlimited, now)


def _delayed_preview(
    before: Device, after: Device, policies: PolicySet, guards: FleetGuards, now: float
) -> ContainmentPreview | None:
    without = rules_without_response(after, policies, guards, now)
    failing = {
        key: rule.response.contain
        for key, state in after.rules.items()
        if state.result is RuleResult.FAIL and key not in without and (rule := policies.rules.get(key)) is not None
    }
    stronger = {key: level for key, level in failing.items() if level.rank > after.level.rank}
    if not stronger:
        return None
    level = max(stronger.values(), key=lambda each: each.rank)
    held = "protected" if guards.protection.protection_reason(after) else ""
    return ContainmentPreview(before.device_id, before.level, level, tuple(stronger), later=True, held=held)
