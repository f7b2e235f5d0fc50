"""Audit entries for rejected reports that may be forged: one a minute per device and reason."""

from collections import OrderedDict
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.service.ingest.decoding import RejectedMessage
from schemas.events import RejectReason

WINDOW: Final = 60.0  # seconds
MAX_REMEMBERED: Final = 4096
MAX_ENTRIES: Final = 600  # within `WINDOW`, of all devices
_KINDS: Final = frozenset(
    {
        RejectReason.UNSIGNED,
        RejectReason.BAD_SIGNATURE,
        RejectReason.REPLAYED,
        RejectReason.TOO_OLD,
        RejectReason.WRONG_DEVICE,
    }
)


class RejectionLog:
    """Limits the rate of audit entries about rejections."""

    def __init__(self) -> None:
        self._recorded: OrderedDict[tuple[str, RejectReason], float] = OrderedDict()
        self._began = 0.0
        self._entries = 0

    def audit_entry(self, why: RejectedMessage, now: float) -> AuditEntry | None:
        """The entry for a rejection at `now` (Unix seconds); `None` if it is beyond the limits."""
        if why.reason not in _KINDS or not why.device_id:
            return None
        if not 0.0 <= now - self._began < WINDOW:
            self._began, self._entries = now, 0
        key = why.device_id, why.reason
        last = self._recorded.get(key)
        if self._entries >= MAX_ENTRIES or (last is not None and 0.0 <= now - last < WINDOW):
            return None
        self._recorded[key] = now
        self._recorded.move_to_end(key)
        if len(self._recorded) > MAX_REMEMBERED:
            self._recorded.popitem(last=False)
        self._entries += 1
        detail: dict[str, object] = {"reason": why.reason.value, "detail": why.detail, "seq": why.seq}
        return AuditEntry(AuditKind.REPORT_REJECTED, why.device_id, "cordon", "", detail, alert=True)
