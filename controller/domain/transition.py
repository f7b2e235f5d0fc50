"""The working copy that one step fills in: the state to come, its effects, and the record of why."""

from dataclasses import dataclass, field
from typing import Any

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import AuditEntry, CommandRecord, Effect, SendReceipt
from controller.domain.evolve import evolve
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import PolicySet


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step decided: all of it is committed together, receipts are sent afterwards.

    `charge`: the device counts against the blast radius from now on (`True`), or no longer (`False`).
    `decision`: the answer to an operator's request; `None` after other events.
    """

    device: Device
    effects: tuple[Effect, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    commands: tuple[CommandRecord, ...] = ()
    receipts: tuple[SendReceipt, ...] = ()
    charge: bool | None = None
    decision: DecisionKind | None = None


@dataclass(slots=True)
class Transition:
    """Local to one call of `step`: never shared, never kept."""

    device: Device
    event_id: str
    now: float
    policies: PolicySet
    guards: FleetGuards = NO_GUARDS
    charge: bool | None = None
    decision: DecisionKind | None = None
    effects: list[Effect] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)
    commands: list[CommandRecord] = field(default_factory=list)
    receipts: list[SendReceipt] = field(default_factory=list)

    def update(self, **changes: Any) -> None:
        """Replace fields of the device."""
        self.device = evolve(self.device, **changes)

    def update_case(self, case: ContainmentCase, **changes: Any) -> ContainmentCase:
        """Replace fields of the device's case; returns the new one."""
        changed = evolve(case, **changes)
        self.device = evolve(self.device, case=changed)
        return changed

    def next_effect_id(self) -> str:
        """Unique within the event, and the same if the event is stepped again."""
        return f"{self.event_id}-{len(self.effects)}"

    def record(
        self, kind: AuditKind, actor: str = "cordon", *, case_id: str = "", alert: bool = False, **detail: Any
    ) -> None:
        """Add a line to the audit; without `case_id` it belongs to the case in force."""
        case = self.device.case
        case_id = case_id or (case.case_id if case is not None else "")
        self.audit.append(AuditEntry(kind, self.device.device_id, actor, case_id, detail, alert))

    def finish(self) -> StepOutcome:
        """The values, frozen."""
        return StepOutcome(
            self.device,
            tuple(self.effects),
            tuple(self.audit),
            tuple(self.commands),
            tuple(self.receipts),
            self.charge,
            self.decision,
        )
