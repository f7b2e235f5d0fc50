"""Refused reports that somebody may have forged, as lines of the record: one a minute for each device and reason."""

from collections import OrderedDict
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.service.ingest.decoding import RejectedMessage
from schemas.events import RejectReason

WINDOW: Final = 60.0  # seconds
MAX_REMEMBERED: Final = 4096
MAX_LINES: Final = 600  # lines within `WINDOW`, whatever devices they are about
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
    """Decides which refusals are worth a line."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, RejectReason], float] = OrderedDict()
        self._began = 0.0
        self._lines = 0

    def line(self, why: RejectedMessage, now: float) -> AuditEntry | None:
        """The line for a refusal at `now` (Unix seconds), if there is to be one."""
        if why.reason not in _KINDS or not why.device_id:
            return None
        if not 0.0 <= now - self._began < WINDOW:
            self._began, self._lines = now, 0
        key = why.device_id, why.reason
        last = self._told.get(key)
        if self._lines >= MAX_LINES or (last is not None and 0.0 <= now - last < WINDOW):
            return None
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        self._lines += 1
        detail: dict[str, object] = {"reason": why.reason.value, "detail": why.detail, "seq": why.seq}
        return AuditEntry(AuditKind.REPORT_REJECTED, why.device_id, "cordon", "", detail, alert=True)
