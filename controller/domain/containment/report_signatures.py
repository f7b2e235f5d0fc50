"""What a signed report has to be besides signed: new, in order, young; and what of it is missing.

Numbers are those of the device's reports and heartbeats, which grow by one. MQTT keeps their order, so what comes late
was held back or comes a second time.
"""

from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.events import PostureReported
from controller.domain.evidence import Evidence
from controller.domain.transition import Transition

WINDOW: Final = 64  # numbers below the highest that may still come, once each
MAX_AHEAD: Final = 300.0  # seconds by which a device's clock may be ahead


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """The highest number taken, and which of the `WINDOW` up to it were: bit 0 is the highest itself."""

    highest: int = -1
    taken: int = 0

    @classmethod
    def after(cls, highest: int) -> "ReplayWindow":
        """For a start: whatever is not above `highest` was taken."""
        return cls(highest, (1 << WINDOW) - 1)

    def trouble(self, seq: int) -> str:
        """Why a message with this number is refused; empty when it is new."""
        behind = self.highest - seq
        if behind < 0:
            return ""
        if behind >= WINDOW:
            return f"number {seq} is {behind} behind the newest: held back, or recorded"
        return f"number {seq} came before: recorded and sent again" if self.taken >> behind & 1 else ""

    def take(self, seq: int) -> "ReplayWindow":
        """With this number taken."""
        ahead = seq - self.highest
        if ahead <= 0:
            return ReplayWindow(self.highest, self.taken | 1 << -ahead)
        shifted = (self.taken << ahead) & ((1 << WINDOW) - 1) if ahead < WINDOW else 0
        return ReplayWindow(seq, shifted | 1)

    def missing(self, seq: int) -> int:
        """How many numbers are skipped when this one comes; 0 at the first."""
        return max(0, seq - self.highest - 1) if self.highest >= 0 else 0


def age_trouble(sent_at: float, now: float, max_age: float) -> str:
    """Why a report made at `sent_at` by the device's clock is refused at `now` (Unix seconds); empty when it is not."""
    age = now - sent_at
    if age > max_age:
        return f"made {age:.0f} s ago by the device's clock, allowed are {max_age:.0f} s: held back, or a wrong clock"
    if age < -MAX_AHEAD:
        return f"made {-age:.0f} s in the future: the device's clock is wrong"
    return ""


def note_missing(draft: Transition, seq: int, missing: int) -> None:
    """Numbers that never came are told; an agent that starts anew skips up to 64 of them."""
    if missing:
        draft.update(gaps=draft.device.gaps + 1)
        draft.record(AuditKind.REPORT_SEQUENCE_GAP_FOUND, draft.device.device_id, missing=missing, before=seq)


def follow(draft: Transition, before: Device, event: PostureReported) -> None:
    """What a signed report says besides its content; `before` is the device as it was without it."""
    if event.evidence is not Evidence.SIGNED:
        return
    if not before.signs:
        draft.update(signs=True)
        draft.record(AuditKind.REPORT_SIGNING_STARTED, before.device_id)
    note_missing(draft, event.seq, event.missing)
    if event.receipt is not None and before.digest and event.receipt != before.digest:
        draft.record(AuditKind.REPORT_RECEIPT_MISSED, before.device_id, heard=event.receipt, given=before.digest)
