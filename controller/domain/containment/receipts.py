"""The receipt of a containment: each call, what was observed on which node, the seconds to the cut. Pure.

It is derived from the audit log and not stored: a proof that the log is unchanged also proves the receipt.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry

OPENING: Final = (AuditKind.CONTAINMENT_DECIDED, AuditKind.CERTIFICATE_REVOKED)  # they open a case
# The level that a decision of this kind sets, where its entry does not contain the level.
_LEVELS: Final = {
    AuditKind.CERTIFICATE_REVOKED: "isolated",
    AuditKind.CONTAINMENT_STEPPED_DOWN: "restricted",
    AuditKind.CONTAINMENT_RELEASE_DECIDED: "none",
}
DECISIONS: Final = frozenset({*OPENING, AuditKind.CONTAINMENT_ESCALATED, *_LEVELS})
PROVEN: Final = frozenset({AuditKind.CONTAINMENT_PROVEN, AuditKind.CONTAINMENT_RELEASE_PROVEN})
TROUBLED: Final = AuditKind.CONTAINMENT_FAILED
PARTIAL: Final = AuditKind.CONTAINMENT_PARTLY_PROVEN
REFUSED: Final = AuditKind.CONTAINMENT_REFUSED


@dataclass(frozen=True, slots=True)
class ReceiptStep:
    """A call and its answer, or, without a call, what was observed at a node."""

    what: str
    call: str
    node: str
    answer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ReceiptDecision:
    """A decision and what became of it; times in Unix seconds.

    `seconds`: from the arrival of the report, or from the operator's request, to the cut. `troubles`: what was missing
    in failed attempts; `attempted` are the steps of the first of them. `unread`: running nodes that could not be read
    when everything else was as decided, each with the reason; empty once it is proven. `left_open`: what the
    containment does not stop.
    """

    decision: AuditKind
    decided_at: float
    by: str
    reason: str
    level: str = ""
    evidence_at: float | None = None
    cut_at: float | None = None
    proven_at: float | None = None
    seconds: float | None = None
    troubles: tuple[str, ...] = ()
    refused: str = ""
    lines: tuple[ReceiptStep, ...] = ()
    attempted: tuple[ReceiptStep, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    left_open: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether only running nodes that cannot be read keep it from being proven."""
        return bool(self.unread) and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the broker was read back and held what was decided."""
        return self.proven_at is not None


@dataclass(frozen=True, slots=True)
class ContainmentReceipt:
    """The decisions of one case, oldest first."""

    device_id: str
    case_id: str
    deeds: tuple[ReceiptDecision, ...]

    @property
    def is_closed(self) -> bool:
        """Whether the last decision was proven; earlier decisions are superseded."""
        return bool(self.deeds) and self.deeds[-1].is_closed

    @property
    def is_partial(self) -> bool:
        """Whether the last decision lacks only running nodes that could not be read."""
        return bool(self.deeds) and self.deeds[-1].is_partial


def receipt_of(device_id: str, case_id: str, lines: Iterable[tuple[float, AuditEntry]]) -> ContainmentReceipt:
    """The receipt of a case from its audit entries, oldest first, each with its Unix seconds."""
    decisions: list[ReceiptDecision] = []
    for at, entry in lines:
        if entry.case_id != case_id:
            continue
        if entry.kind in DECISIONS:
            decisions.append(_decision(at, entry))
        elif decisions:
            decisions[-1] = _with_outcome(decisions[-1], at, entry)
    return ContainmentReceipt(device_id, case_id, tuple(decisions))


def cases_of(device_id: str, lines: Iterable[tuple[float, AuditEntry]]) -> list[ContainmentReceipt]:
    """The receipts of a device's cases from its audit entries, oldest first; a case without its opening is left out."""
    of_case: dict[str, list[tuple[float, AuditEntry]]] = {}
    for line in lines:
        if line[1].case_id:
            of_case.setdefault(line[1].case_id, []).append(line)
    receipts = (receipt_of(device_id, case_id, found) for case_id, found in of_case.items())
    return [receipt for receipt in receipts if receipt.deeds and receipt.deeds[0].decision in OPENING]


def _decision(at: float, entry: AuditEntry) -> ReceiptDecision:
    detail = entry.detail or {}
    level = _LEVELS.get(entry.kind) or _text(detail, "level")
    return ReceiptDecision(entry.kind, at, entry.actor, _text(detail, "reason"), level)


def _with_outcome(decision: ReceiptDecision, at: float, entry: AuditEntry) -> ReceiptDecision:
    detail = entry.detail or {}
    if entry.kind in PROVEN:
        if entry.kind is AuditKind.CONTAINMENT_PROVEN and _text(detail, "level") != decision.level:
            return decision  # the proof of the decision before, which was still being carried out
        return replace(
            decision,
            evidence_at=decision.evidence_at or _number(detail, "evidence_at"),
            cut_at=decision.cut_at or _number(detail, "cut_at"),
            seconds=decision.seconds if decision.seconds is not None else _number(detail, "seconds"),
            proven_at=decision.proven_at if decision.is_closed else at,
            lines=decision.lines if decision.is_closed else _steps(detail),
            unread=(),
            left_open=_texts(detail, "left_open") or decision.left_open,
        )
    if entry.kind is PARTIAL:
        if decision.is_closed or _text(detail, "level") != decision.level:
            return decision
        return replace(
            decision,
            evidence_at=decision.evidence_at or _number(detail, "evidence_at"),
            cut_at=decision.cut_at or _number(detail, "cut_at"),
            seconds=decision.seconds if decision.seconds is not None else _number(detail, "seconds"),
            lines=_steps(detail),
            unread=_unread(detail),
            left_open=_texts(detail, "left_open"),
        )
    if entry.kind is TROUBLED:
        troubles = (*decision.troubles, _text(detail, "trouble"))
        return replace(decision, troubles=troubles, attempted=decision.attempted or _steps(detail))
    if entry.kind is REFUSED:
        return replace(decision, refused=_text(detail, "reason"))
    return decision


def _unread(detail: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    rows = detail.get("unread") or ()
    return tuple((_text(row, "node"), _text(row, "reason")) for row in rows if isinstance(row, Mapping))


def _steps(detail: Mapping[str, Any]) -> tuple[ReceiptStep, ...]:
    return tuple(
        ReceiptStep(
            _text(step, "what"),
            _text(step, "call"),
            _text(step, "node"),
            _text(step, "answer"),
            _number(step, "seconds") or 0.0,
        )
        for step in detail.get("steps") or ()
        if isinstance(step, Mapping)
    )


def _text(detail: Mapping[str, Any], name: str) -> str:
    value = detail.get(name)
    return value if isinstance(value, str) else ""


def _texts(detail: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(text for text in detail.get(name) or () if isinstance(text, str))


def _number(detail: Mapping[str, Any], name: str) -> float | None:
    value = detail.get(name)
    return float(value) if isinstance(value, int | float) else None
