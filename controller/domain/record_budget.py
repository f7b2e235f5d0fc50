"""What one device may add to the audit and to the log in a day: repeats fold into counts, and there is a limit.

Decisions about containment, commands and certificates are always recorded, and so is the first time in a day that a
device breaks a rule or reports a kind of event. Everything else that a device can cause at will is within the limit.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry

ROWS_PER_DAY: Final = 2_000  # of one device
BYTES_PER_DAY: Final = 4 * 1024 * 1024  # of one device
DAY: Final = 86_400.0  # seconds; budgets begin anew at midnight UTC
FULL_ROWS: Final = 32  # times in a day that the same thing is recorded; then only the 64th, 128th, 256th, ...
MAX_KEYS: Final = 256  # things of one device and day that are told apart; further ones count as one for each kind
MAX_IDLE: Final = 10_000  # devices of earlier days that are remembered for their unrecorded counts
ROW_BYTES: Final = 200  # of a row besides its detail: digests, ids and indexes

# What a device can cause at any rate. All other kinds follow from decisions and are bounded by them.
_FROM_DEVICES: Final = frozenset(
    {
        AuditKind.REPORT_POSTURE_CHANGED,
        AuditKind.REPORT_SEQUENCE_REGRESSED,
        AuditKind.REPORT_REJECTED,
        AuditKind.REPORT_SEQUENCE_GAP_FOUND,
        AuditKind.REPORT_RECEIPT_MISSED,
        AuditKind.REPORT_CERTIFICATE_MISMATCHED,
        AuditKind.DEVICE_STALE,
        AuditKind.DEVICE_CONTACT_RESUMED,
        AuditKind.DEVICE_ONLINE,
        AuditKind.DEVICE_OFFLINE,
        AuditKind.DEVICE_CLONE_SUSPECTED,
        AuditKind.DEVICE_RETURNED,
        AuditKind.DEVICE_EVENT_REPORTED,
        AuditKind.EVENT_HOLD_EXPIRED,
        AuditKind.COMMAND_REPLAY_REFUSED,
        AuditKind.CONTAINMENT_REFUSED,
        AuditKind.CONTAINMENT_DEFERRED,
        AuditKind.CONTAINMENT_PENDING_CLEARED,
        AuditKind.CONTAINMENT_RELEASE_BLOCKED,
        AuditKind.KEY_MISMATCHED,
        AuditKind.KEY_REGISTRATION_REFUSED,
    }
)
# These name a device, and somebody with an enrolment token caused them: no share of the device's.
FROM_STRANGERS: Final = frozenset({AuditKind.ENROLMENT_REFUSED, AuditKind.ENROLMENT_TOKEN_REUSED})
_RULES: Final = {AuditKind.REPORT_POSTURE_CHANGED: "worse", AuditKind.DEVICE_EVENT_REPORTED: "rules"}
# Of these the first time in a day is recorded whatever the budget says.
_FINDINGS: Final = _FROM_DEVICES - {
    AuditKind.DEVICE_ONLINE,
    AuditKind.DEVICE_OFFLINE,
    AuditKind.DEVICE_STALE,
    AuditKind.DEVICE_CONTACT_RESUMED,
    AuditKind.REPORT_RECEIPT_MISSED,
}
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """Rows (and as many log lines) and bytes of one device and day."""

    rows: int = ROWS_PER_DAY
    size: int = BYTES_PER_DAY


@dataclass(frozen=True, slots=True)
class RecordUse:
    """What the audit holds of a device since midnight; `is_told`: also that its budget was used up."""

    device_id: str
    rows: int
    size: int
    is_told: bool


@dataclass(slots=True)
class _Use:
    day: int
    rows: int = 0
    size: int = 0
    is_told: bool = False
    lines: int = 0  # log lines besides those of rows
    times: Counter[str] = field(default_factory=Counter)  # of each thing, recorded or not
    unrecorded: Counter[str] = field(default_factory=Counter)  # of each thing, since it was last recorded
    folded: Counter[str] = field(default_factory=Counter)  # of each kind, in this day
    rules: set[str] = field(default_factory=set)  # rules that were recorded as broken


class RecordBudget:
    """The budgets of all devices. `folded` counts what was not recorded, `used_up` the budgets that were used up."""

    def __init__(self, limits: RecordLimits = RecordLimits()) -> None:
        self.limits = limits
        self.folded = 0
        self.used_up = 0
        self._uses: dict[str, _Use] = {}
        self._strangers = _Use(0)

    def load(self, uses: Iterable[RecordUse], now: float) -> None:
        """Goes on with what the audit holds since midnight; `now` in Unix seconds."""
        day = int(now // DAY)
        for one in uses:
            self._uses[one.device_id] = _Use(day, one.rows, one.size, one.is_told)

    def admit(self, entries: Sequence[AuditEntry], now: float) -> Sequence[AuditEntry]:
        """Returns what is recorded of these entries; `now` in Unix seconds."""
        if not any(entry.device_id for entry in entries):
            return entries
        found: list[AuditEntry] = []
        for entry in entries:
            if entry.kind in FROM_STRANGERS:
                self._admit_stranger(entry, int(now // DAY), found)
            elif entry.device_id:
                self._admit(entry, int(now // DAY), found)
            else:
                found.append(entry)
        return found

    def undo(self, entries: Iterable[AuditEntry]) -> None:
        """Takes back entries that were admitted, and then not recorded: what caused them is decided again."""
        for entry in entries:
            use = self._uses.get(entry.device_id)
            if use is None:
                continue
            if entry.kind is AuditKind.AUDIT_BUDGET_USED_UP:
                use.is_told = False
                self.used_up -= 1
                continue
            use.rows = max(0, use.rows - 1)
            use.size = max(0, use.size - _size_of(entry))
            key = self._key(entry, use)
            use.times[key] = max(0, use.times[key] - 1)
            named = (entry.detail or {}).get(_RULES.get(entry.kind, ""))
            if isinstance(named, dict | list):
                use.rules -= set(map(str, named))

    def is_used_up(self, device_id: str, now: float) -> bool:
        """Whether the device has used up its budget of this day."""
        use = self._uses.get(device_id)
        return use is not None and use.day == int(now // DAY) and self._is_over(use)

    def admits_line(self, device_id: str, now: float) -> bool:
        """Whether one more log line about the device, besides those of its rows, is written."""
        use = self._use(device_id, int(now // DAY), [])
        use.lines += 1
        return use.lines <= self.limits.rows

    def _admit(self, entry: AuditEntry, day: int, found: list[AuditEntry]) -> None:
        use = self._use(entry.device_id, day, found)
        size = _size_of(entry)
        if entry.kind in _FROM_DEVICES:
            key = self._key(entry, use)
            use.times[key] += 1
            if not self._is_recorded(entry, use, use.times[key]):
                use.unrecorded[key] += 1
                use.folded[entry.kind.value] += 1
                self.folded += 1
                self._tell_once(entry.device_id, use, found)
                return
            if repeats := use.unrecorded.pop(key, 0):
                entry = replace(entry, detail={**(entry.detail or {}), "repeats": repeats})
        use.rows += 1
        use.size += size
        found.append(entry)
        self._tell_once(entry.device_id, use, found)

    def _admit_stranger(self, entry: AuditEntry, day: int, found: list[AuditEntry]) -> None:
        """Folds what the holder of one enrolment token repeats, whatever devices it names."""
        if self._strangers.day != day:
            self._strangers = _Use(day)
        detail = entry.detail or {}
        key = "\n".join((entry.kind.value, str(detail.get("token_id", "")), str(detail.get("code", ""))))
        self._strangers.times[key] += 1
        times = self._strangers.times[key]
        if times > FULL_ROWS and times & (times - 1):
            self.folded += 1
            return
        if times > FULL_ROWS:
            entry = replace(entry, detail={**detail, "repeats": times // 2 - 1})
        found.append(entry)

    def _is_recorded(self, entry: AuditEntry, use: _Use, times: int) -> bool:
        named = (entry.detail or {}).get(_RULES.get(entry.kind, ""))
        rules = set(map(str, named)) - use.rules if isinstance(named, dict | list) else set()
        if rules:
            use.rules |= rules
            return True
        if self._is_over(use):
            return times == 1 and entry.kind in _FINDINGS
        return times <= FULL_ROWS or times & (times - 1) == 0

    def _is_over(self, use: _Use) -> bool:
        return use.rows >= self.limits.rows or use.size >= self.limits.size

    def _tell_once(self, device_id: str, use: _Use, found: list[AuditEntry]) -> None:
        if use.is_told or not self._is_over(use):
            return
        use.is_told = True
        self.used_up += 1
        detail: dict[str, object] = {
            "rows": use.rows, "bytes": use.size, "folded": dict(use.folded),
            "what": "until midnight UTC only decisions and first findings are recorded, and its reports release it"
            " from no containment",
        }  # fmt: skip
        found.append(AuditEntry(AuditKind.AUDIT_BUDGET_USED_UP, device_id, "cordon", "", detail, alert=True))

    def _use(self, device_id: str, day: int, found: list[AuditEntry]) -> _Use:
        """Returns the use of this day; a new day begins by recording what the last one folded."""
        use = self._uses.get(device_id)
        if use is not None and use.day == day:
            return use
        after = _Use(day)
        if use is not None and use.folded:
            detail: dict[str, object] = {"folded": dict(use.folded)}
            found.append(AuditEntry(AuditKind.AUDIT_REPEATS_FOLDED, device_id, "cordon", "", detail))
            after.rows = 1
        elif use is None and len(self._uses) >= MAX_IDLE:
            self._forget_idle(day)
        self._uses[device_id] = after
        return after

    def _forget_idle(self, day: int) -> None:
        if next(iter(self._uses.values())).day != day:
            self._uses = {device_id: use for device_id, use in self._uses.items() if use.day == day}

    @staticmethod
    def _key(entry: AuditEntry, use: _Use) -> str:
        """Names what the entry says, so that the same thing is recognised: kind, event and rules, no numbers."""
        detail = entry.detail or {}
        parts = [entry.kind.value]
        for name in ("event_kind", "severity", "worse", "better", "reason", "rules", "why"):
            value = detail.get(name)
            if value:
                parts.append(value if isinstance(value, str) else _encode(value))
        key = "\n".join(parts)
        return key if key in use.times or len(use.times) < MAX_KEYS else entry.kind.value


def _size_of(entry: AuditEntry) -> int:
    return ROW_BYTES + len(_encode(entry.detail).encode("utf-8", "surrogatepass"))
