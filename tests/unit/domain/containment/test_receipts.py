"""A receipt is read off the record, whatever order attempts, decisions and proofs came in."""

from typing import Any

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.receipts import receipt_of
from controller.domain.effects import AuditEntry

CALL = {"what": "ban", "call": "POST /banned", "node": "http://n1", "answer": "200", "seconds": 0.002}
SEEN = {"what": "ban and client read back", "call": "", "node": "http://n2", "answer": "as wanted", "seconds": 0.0}


def line(
    at: float, kind: AuditKind, case_id: str = "c1", actor: str = "policy", **detail: Any
) -> tuple[float, AuditEntry]:
    return at, AuditEntry(kind, "d1", actor, case_id, detail)


def test_the_receipt_of_a_case_from_report_to_release() -> None:
    found = receipt_of(
        "d1",
        "c1",
        [
            line(10.0, AuditKind.CONTAINMENT_DECIDED, level="isolated", reason="fails p/telnet"),
            line(10.1, AuditKind.CONTAINMENT_FAILED, trouble="no ban in force", steps=[CALL]),
            line(
                10.6,
                AuditKind.CONTAINMENT_PROVEN,
                level="isolated",
                seconds=0.4,
                cut_at=10.3,
                evidence_at=9.9,
                steps=[CALL, SEEN],
            ),
            line(11.0, AuditKind.CONTAINMENT_PROVEN, "other", level="isolated", steps=[]),
            line(12.0, AuditKind.CONTAINMENT_STEPPED_DOWN, reason="its time is over"),
            line(12.5, AuditKind.CONTAINMENT_PROVEN, level="restricted", steps=[SEEN]),
            line(20.0, AuditKind.CONTAINMENT_RELEASE_DECIDED, "c1", "operator:a", reason="fine"),
            line(20.5, AuditKind.CONTAINMENT_RELEASE_PROVEN, steps=[SEEN]),
        ],
    )
    isolated, down, released = found.deeds
    assert found.is_closed
    assert (isolated.level, isolated.seconds, isolated.cut_at, isolated.evidence_at) == ("isolated", 0.4, 10.3, 9.9)
    assert isolated.troubles == ("no ban in force",)
    assert [(one.call, one.node, one.answer) for one in isolated.lines] == [
        ("POST /banned", "http://n1", "200"),
        ("", "http://n2", "as wanted"),
    ]
    assert [one.call for one in isolated.attempted] == ["POST /banned"]
    assert (down.level, down.proven_at, down.seconds) == ("restricted", 12.5, None)
    assert (released.level, released.by, released.proven_at) == ("none", "operator:a", 20.5)


def test_a_revocation_opens_a_case() -> None:
    found = receipt_of(
        "d1",
        "c1",
        [
            line(1.0, AuditKind.CERTIFICATE_REVOKED, actor="operator:a", serials=["a1"], reason="stolen"),
            line(1.5, AuditKind.CONTAINMENT_PROVEN, level="isolated", steps=[SEEN]),
            line(9.0, AuditKind.CERTIFICATE_REVOCATION_RESOLVED),
            line(9.0, AuditKind.CONTAINMENT_STEPPED_DOWN, reason="it has a new certificate"),
        ],
    )
    revoked, down = found.deeds
    assert (revoked.decision, revoked.level, revoked.by) == (AuditKind.CERTIFICATE_REVOKED, "isolated", "operator:a")
    assert (revoked.reason, revoked.proven_at, revoked.is_closed) == ("stolen", 1.5, True)
    assert (down.level, down.is_closed) == ("restricted", False)


def test_the_last_decision_has_to_be_proven() -> None:
    found = receipt_of(
        "d1",
        "c1",
        [
            line(1.0, AuditKind.CONTAINMENT_DECIDED, level="restricted"),
            line(2.0, AuditKind.CONTAINMENT_ESCALATED, level="isolated"),
            # of the restriction, which was still being carried out
            line(3.0, AuditKind.CONTAINMENT_PROVEN, level="restricted", steps=[SEEN]),
        ],
    )
    assert not found.is_closed
    assert [deed.is_closed for deed in found.deeds] == [False, False]


def test_a_refusal_is_shown_and_a_repaired_drift_changes_nothing() -> None:
    refused = receipt_of(
        "d1",
        "c1",
        [line(1.0, AuditKind.CONTAINMENT_DECIDED), line(1.1, AuditKind.CONTAINMENT_REFUSED, reason="merely claimed")],
    )
    assert refused.deeds[0].refused == "merely claimed"
    again = receipt_of(
        "d1",
        "c1",
        [
            line(1.0, AuditKind.CONTAINMENT_DECIDED, level="restricted"),
            line(2.0, AuditKind.CONTAINMENT_PROVEN, level="restricted", steps=[CALL], seconds=1.0),
            line(9.0, AuditKind.BROKER_DRIFT_FOUND, what="the rules were altered"),
            line(9.5, AuditKind.CONTAINMENT_PROVEN, level="restricted", steps=[SEEN], seconds=None),
        ],
    )
    assert (again.deeds[0].proven_at, again.deeds[0].seconds, len(again.deeds[0].lines)) == (2.0, 1.0, 1)


def test_foreign_entries_and_malformed_details_are_ignored() -> None:
    assert not receipt_of("d1", "c1", []).is_closed
    strange = [
        line(1.0, AuditKind.CONTAINMENT_DECIDED),
        line(2.0, AuditKind.CONTAINMENT_PROVEN, level="", steps=["x", {"what": 7}], seconds="1"),
    ]
    (deed,) = receipt_of("d1", "c1", strange).deeds
    assert [one.what for one in deed.lines] == [""]
    assert deed.seconds is None
