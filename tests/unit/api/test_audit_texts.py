"""Every audit kind has one sentence, and every sentence one kind."""

import re

from controller.api.audit_texts import AUDIT_TEXTS, sentence
from controller.domain.audit_kinds import AuditKind, DecisionKind


def test_every_kind_has_a_sentence_of_its_own() -> None:
    assert set(AUDIT_TEXTS) == set(AuditKind)
    assert len(set(AUDIT_TEXTS.values())) == len(AuditKind)
    assert [text for text in AUDIT_TEXTS.values() if not re.fullmatch(r"[A-Z][^.]+\.", text)] == []


def test_a_decision_reads_as_the_line_that_records_it() -> None:
    assert {sentence(decision) for decision in DecisionKind} <= set(AUDIT_TEXTS.values())
    assert sentence(DecisionKind.RELEASED) == AUDIT_TEXTS[AuditKind.CONTAINMENT_RELEASE_DECIDED]
