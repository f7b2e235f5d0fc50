"""What would become of a device under other policies: the step that its next word would cause, not kept."""

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
    """A containment that would change. `later`: only after more failing reports, or when a grace period is over.

    `held`: why it would not be carried out after all: a protected device, or an operator who dismissed it.
    """

    device_id: str
    before: ContainmentLevel
    after: ContainmentLevel
    causes: tuple[str, ...]
    later: bool = False
    held: str = ""

    @property
    def contains(self) -> bool:
        """Whether the device would be cut off further than it is, by policy alone."""
        return self.after.rank > self.before.rank and not self.held


def preview_containment(
    device: Device,
    findings: tuple[Finding, ...],
    marks: tuple[str, ...],
    policies: PolicySet,
    guards: FleetGuards,
    now: float,
) -> ContainmentPreview | None:
    """What `policies`, by which the stored report was judged with `findings`, would change; `None` for nothing.

    The blast radius is left out: what it would hold back is what is to be known beforehand.
    """
    free = replace(guards, radius=BlastRadius())
    event = HeartbeatReceived(
        _EVENT, device.report_seq, device.digest, now, findings, policies.version, predicates=marks
    )
    after = step(device, event, now, policies, free).device
    pending = after.pending
    if pending is not None and pending.level.rank > after.level.rank:
        if device.pending is not None and device.pending.why is pending.why:
            return None  # it is held back as it is
        held = "dismissed" if pending.why is HoldReason.DISMISSED else pending.why.value
        return ContainmentPreview(device.device_id, device.level, pending.level, pending.causes, held=held)
    waits = device.pending
    if (
        waits is not None
        and waits.why is HoldReason.BLAST_RADIUS
        and device.level.rank < after.level.rank <= waits.level.rank
    ):
        return None  # it waits for that already
    if after.level is not device.level:
        causes = after.case.causes if after.case is not None else ()
        return ContainmentPreview(device.device_id, device.level, after.level, causes)
    return _delayed_preview(device, after, policies, free, now)


def _delayed_preview(
    before: Device, after: Device, policies: PolicySet, guards: FleetGuards, now: float
) -> ContainmentPreview | None:
    without = rules_without_response(after, policies, guards, now)
    asking = {
        key: rule.response.contain
        for key, state in after.rules.items()
        if state.result is RuleResult.FAIL and key not in without and (rule := policies.rules.get(key)) is not None
    }
    further = {key: level for key, level in asking.items() if level.rank > after.level.rank}
    if not further:
        return None
    level = max(further.values(), key=lambda one: one.rank)
    held = "protected" if guards.protection.protection_reason(after) else ""
    return ContainmentPreview(before.device_id, before.level, level, tuple(further), later=True, held=held)
