"""The mutable working state of one step, and the immutable outcome that it becomes."""

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
    """The result of a step. All of it is committed in one transaction; receipts are sent after the commit.

    `commands`: the commands that were issued or changed. `charge`: the device counts against the blast radius from
    now on (`True`), or no longer (`False`). `decision`: the answer to an operator's request, `None` for other events.
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
    """The mutable working state of one call of `step`: inputs, the device so far, and everything that follows.

    Handlers read and change it. No reference to it outlives the step.
    """

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

    def update_device(self, **changes: Any) -> None:
        """Replaces fields of the device."""
        self.device = evolve(self.device, **changes)

    def update_case(self, case: ContainmentCase, **changes: Any) -> ContainmentCase:
        """Replaces fields of the device's case and returns the new case."""
        changed = evolve(case, **changes)
        self.device = evolve(self.device, case=changed)
        return changed

    def next_effect_id(self) -> str:
        """Returns an id that is unique within the event, and the same if the event is stepped again."""
        return f"{self.event_id}-{len(self.effects)}"

    def add_audit(
        self, kind: AuditKind, actor: str = "cordon", *, case_id: str = "", alert: bool = False, **detail: Any
    ) -> None:
        """Adds an audit entry; without `case_id` it belongs to the case in force."""
        case = self.device.case
        case_id = case_id or (case.case_id if case is not None else "")
        self.audit.append(AuditEntry(kind, self.device.device_id, actor, case_id, detail, alert))

    def to_outcome(self) -> StepOutcome:
        return StepOutcome(
            self.device,
            tuple(self.effects),
            tuple(self.audit),
            tuple(self.commands),
            tuple(self.receipts),
            self.charge,
            self.decision,
        )
