"""Kinds are dotted, named as they are written, and decisions are among them."""

import re

from controller.domain.audit_kinds import AuditKind, DecisionKind


def test_kinds_are_dotted_and_named_as_they_are_written() -> None:
    assert [kind for kind in AuditKind if not re.fullmatch(r"[a-z_]+\.[a-z_]+", kind.value)] == []
    assert [kind for kind in AuditKind if kind.name != kind.value.replace(".", "_").upper()] == []


def test_every_decision_is_the_kind_of_an_audit_line() -> None:
    assert {decision.value for decision in DecisionKind} <= {kind.value for kind in AuditKind}
