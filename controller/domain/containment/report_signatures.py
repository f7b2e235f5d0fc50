"""Checks of signed reports besides the signature: replays, order, age and gaps.

Sequence numbers are those of the device's reports and heartbeats, which grow by one. MQTT keeps their order, so a late
message was delayed or replayed.
"""

from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.events import PostureReported, SignatureRequirementLifted
from controller.domain.evidence import Evidence
from controller.domain.transition import Transition

WINDOW: Final = 64  # sequence numbers below the highest that are still accepted, once each
MAX_AHEAD: Final = 300.0  # seconds by which a device's clock may be ahead


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """The highest accepted sequence number, and which of the `WINDOW` up to it were accepted: bit 0 is the highest."""

    highest: int = -1
    taken: int = 0

    @classmethod
    def starting_at(cls, highest: int) -> "ReplayWindow":
        """Returns a window that accepts only numbers above `highest`."""
        return cls(highest, (1 << WINDOW) - 1)

    def rejection_reason(self, seq: int) -> str:
        """Returns why a message with this number is rejected, empty if it is new."""
        behind = self.highest - seq
        if behind < 0:
            return ""
        if behind >= WINDOW:
            return f"number {seq} is {behind} behind the newest: delayed or replayed"
        return f"number {seq} was accepted before: replayed" if self.taken >> behind & 1 else ""

    def accept(self, seq: int) -> "ReplayWindow":
        """Returns the window after this number."""
        ahead = seq - self.highest
        if ahead <= 0:
            return ReplayWindow(self.highest, self.taken | 1 << -ahead)
        shifted = (self.taken << ahead) & ((1 << WINDOW) - 1) if ahead < WINDOW else 0
        return ReplayWindow(seq, shifted | 1)

    def gap_before(self, seq: int) -> int:
        """Returns how many numbers are skipped by this one; 0 for the first."""
        return max(0, seq - self.highest - 1) if self.highest >= 0 else 0


def age_rejection_reason(sent_at: float, now: float, max_age: float) -> str:
    """Returns why a report that was made at `sent_at` (device clock) is rejected at `now`, Unix seconds; or empty."""
    age = now - sent_at
    if age > max_age:
        return f"made {age:.0f} s ago by the device's clock, allowed are {max_age:.0f} s: delayed, or a wrong clock"
    if age < -MAX_AHEAD:
        return f"made {-age:.0f} s in the future: the device's clock is wrong"
    return ""


def record_gaps(transition: Transition, seq: int, missing: int) -> None:
    """Records missing sequence numbers; a restarted agent skips up to 64 of them."""
    if missing:
        device = transition.device
        transition.update_device(gaps=device.gaps + 1)
        transition.add_audit(AuditKind.REPORT_SEQUENCE_GAP_FOUND, device.device_id, missing=missing, before=seq)


def record_signature(transition: Transition, before: Device, event: PostureReported) -> None:
    """Records what a signed report proves besides its content; `before`: the device before the report."""
    if event.evidence is not Evidence.SIGNED:
        return
    if not before.signs:
        transition.update_device(signs=True)
        transition.add_audit(AuditKind.REPORT_SIGNING_STARTED, before.device_id)
    record_gaps(transition, event.seq, event.missing)
    if event.receipt is not None and before.digest and event.receipt != before.digest:
        transition.add_audit(
            AuditKind.REPORT_RECEIPT_MISSED, before.device_id, heard=event.receipt, given=before.digest
        )


def on_signature_requirement_lifted(transition: Transition, event: SignatureRequirementLifted) -> None:
    """Accepts unsigned reports again, until the next signed one."""
    transition.update_device(signs=False)
    transition.add_audit(AuditKind.REPORT_SIGNING_WAIVED, event.by, before={"signs": True}, reason=event.reason)
