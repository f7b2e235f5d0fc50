"""The receipt of a containment: each call, what was observed on which node, the seconds to the cut. Pure.

It is read off the record, not kept beside it: there is one truth about what was done, and whoever can prove that the
record was not altered has proved the receipt.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry

OPENING: Final = (AuditKind.CONTAINMENT_DECIDED, AuditKind.CERTIFICATE_REVOKED)  # these kinds begin a case
# The level that a decision of this kind sets, where its line does not contain the level.
_LEVELS: Final = {
    AuditKind.CERTIFICATE_REVOKED: "isolated",
    AuditKind.CONTAINMENT_STEPPED_DOWN: "restricted",
    AuditKind.CONTAINMENT_RELEASE_DECIDED: "none",
}
DECISIONS: Final = frozenset({*OPENING, AuditKind.CONTAINMENT_ESCALATED, *_LEVELS})
PROVEN: Final = frozenset({AuditKind.CONTAINMENT_PROVEN, AuditKind.CONTAINMENT_RELEASE_PROVEN})
TROUBLED: Final = AuditKind.CONTAINMENT_FAILED
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

    `seconds`: from the arrival of the report (or from the operator's word) to the cut. `troubles`: what was missing in
    attempts before, of which the first one's lines are kept. It is closed once the broker was read back.
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

    @property
    def is_closed(self) -> bool:
        """Whether the broker was read back and held what was decided."""
        return self.proven_at is not None


@dataclass(frozen=True, slots=True)
class ContainmentReceipt:
    """All deeds of one case, oldest first."""

    device_id: str
    case_id: str
    deeds: tuple[ReceiptDecision, ...]

    @property
    def is_closed(self) -> bool:
        """Whether the last decision was proven: what was decided before it is past."""
        return bool(self.deeds) and self.deeds[-1].is_closed


def receipt_of(device_id: str, case_id: str, lines: Iterable[tuple[float, AuditEntry]]) -> ContainmentReceipt:
    """The receipt of a case from its lines in the record, oldest first, each with its Unix seconds."""
    deeds: list[ReceiptDecision] = []
    for at, entry in lines:
        if entry.case_id != case_id:
            continue
        if entry.kind in DECISIONS:
            deeds.append(_decided(at, entry))
        elif deeds:
            deeds[-1] = _after(deeds[-1], at, entry)
    return ContainmentReceipt(device_id, case_id, tuple(deeds))


def _decided(at: float, entry: AuditEntry) -> ReceiptDecision:
    detail = entry.detail or {}
    level = _LEVELS.get(entry.kind) or _text(detail, "level")
    return ReceiptDecision(entry.kind, at, entry.actor, _text(detail, "reason"), level)


def _after(deed: ReceiptDecision, at: float, entry: AuditEntry) -> ReceiptDecision:
    detail = entry.detail or {}
    if entry.kind in PROVEN:
        if entry.kind is AuditKind.CONTAINMENT_PROVEN and _text(detail, "level") != deed.level:
            return deed  # of the decision before, which was still being carried out
        lines = _lines(detail)
        return replace(
            deed,
            evidence_at=deed.evidence_at or _number(detail, "evidence_at"),
            cut_at=deed.cut_at or _number(detail, "cut_at"),
            seconds=deed.seconds if deed.seconds is not None else _number(detail, "seconds"),
            proven_at=deed.proven_at if deed.is_closed else at,
            lines=deed.lines or lines,
        )
    if entry.kind is TROUBLED:
        return replace(
            deed, troubles=(*deed.troubles, _text(detail, "trouble")), attempted=deed.attempted or _lines(detail)
        )
    if entry.kind is REFUSED:
        return replace(deed, refused=_text(detail, "reason"))
    return deed


def _lines(detail: Mapping[str, Any]) -> tuple[ReceiptStep, ...]:
    steps = detail.get("steps") or ()
    return tuple(
        ReceiptStep(
            _text(one, "what"),
            _text(one, "call"),
            _text(one, "node"),
            _text(one, "answer"),
            _number(one, "seconds") or 0.0,
        )
        for one in steps
        if isinstance(one, Mapping)
    )


def _text(detail: Mapping[str, Any], name: str) -> str:
    found = detail.get(name)
    return found if isinstance(found, str) else ""


def _number(detail: Mapping[str, Any], name: str) -> float | None:
    found = detail.get(name)
    return float(found) if isinstance(found, int | float) else None
