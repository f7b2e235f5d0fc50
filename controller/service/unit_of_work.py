"""The unit of work: everything that one pass of decisions changes, committed together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord, Effect, SendReceipt
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.guards.blast_radius import RadiusCheck
from controller.domain.guards.waivers import Waiver
from controller.domain.transition import StepOutcome
from controller.ports.store import DeadLetter, StoredKnowledge, StoredReport, StoreWrites


@dataclass(slots=True, eq=False)
class UnitOfWork:
    """Collects the outcomes of steps; a device that changes twice is written once, in its last state."""

    devices: dict[str, Device] = field(default_factory=dict)
    seen: dict[str, Device] = field(default_factory=dict)  # only their time of contact is written
    reports: dict[str, StoredReport] = field(default_factory=dict)
    checked: dict[str, Device] = field(default_factory=dict)  # decided about without a change
    audit: list[tuple[float, AuditEntry]] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    commands: dict[str, CommandRecord] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    receipts: list[SendReceipt] = field(default_factory=list)
    charges: dict[tuple[str, str], float | None] = field(default_factory=dict)
    waivers: dict[str, Waiver | None] = field(default_factory=dict)
    requests: dict[str, ApprovalRequest] = field(default_factory=dict)
    knowledge: StoredKnowledge | None = None
    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    deadlines: dict[str, float | None] = field(default_factory=dict)
    waits_in: dict[str, str] = field(default_factory=dict)
    holds_back: bool = False  # a device that was not held back before
    guards_version: tuple[int, int] | None = None
    radius: dict[str, RadiusCheck] = field(default_factory=dict)  # by pool
    changes_radius: bool = False
    policy_epoch: int | None = None

    def __contains__(self, device_id: object) -> bool:
        """Whether a row of the device is written."""
        return device_id in self.seen or device_id in self.devices or device_id in self.reports

    def add(self, outcome: StepOutcome, audit: Sequence[AuditEntry], now: float) -> None:
        """Adds everything of an outcome except the device: the caller knows which of its rows changed.

        `audit` is what is recorded of the outcome's entries.
        """
        if outcome.receipts:
            self.receipts.extend(outcome.receipts)
        if audit:
            self.audit.extend((now, entry) for entry in audit)
        if outcome.effects:
            self.effects.extend(outcome.effects)
        for record in outcome.commands:
            self.commands[record.command_id] = record

    def to_writes(self) -> StoreWrites:
        return StoreWrites(
            tuple(self.devices.values()),
            tuple(device for device_id, device in self.seen.items() if device_id not in self.devices),
            tuple(self.reports.values()),
            tuple(self.audit),
            tuple(self.effects),
            tuple(self.done),
            tuple(self.commands.values()),
            tuple(self.dead),
            charges=tuple((ledger, device, at) for (ledger, device), at in self.charges.items()),
            waivers=tuple(self.waivers.items()),
            requests=tuple(self.requests.values()),
            knowledge=self.knowledge,
            versions=self.versions,
            deadlines=self.deadlines,
            waits_in=self.waits_in,
            guards_version=self.guards_version,
            radius=tuple(self.radius.values()),
            policy_epoch=self.policy_epoch,
            checked=tuple(self.checked.values()),
        )

    @property
    def is_empty(self) -> bool:
        return not (
            self.devices
            or self.seen
            or self.audit
            or self.effects
            or self.done
            or self.commands
            or self.dead
            or self.reports
            or self.charges
            or self.waivers
            or self.requests
            or self.checked
        )


class CommitListener(Protocol):
    """Follows commits: the outbox, the log, metrics, rollouts, waiting requests."""

    def on_commit(self, batch: UnitOfWork) -> None:
        """Called after each commit, in the order of the decisions and on the loop's thread; it must not raise."""
        ...


@runtime_checkable
class RefusalListener(Protocol):
    """A listener that also changes its memory before a commit."""

    def undo(self, batch: UnitOfWork) -> None:
        """Called with a batch that was refused, before it is decided again."""
        ...
