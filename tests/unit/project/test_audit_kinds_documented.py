"""Audit kinds are used, and the documents name those that exist."""

import re
from pathlib import Path
from typing import Final

import pytest

from controller.api.audit_texts import AUDIT_TEXTS
from controller.domain.audit_kinds import AuditKind, DecisionKind
from tests.support.project_tree import ROOT, documents, name_of, python_files

OLD_KINDS: Final = 94  # of 0.1.0
_KINDS: Final = frozenset(kind.value for kind in AuditKind)
_SUBJECTS: Final = "|".join(sorted({kind.value.partition(".")[0] for kind in AuditKind}))
_NAMED: Final = re.compile(rf"(?:`|--kind )((?:{_SUBJECTS})\.[a-z_]+)\b")
# Facts, settings, actions and files whose names begin with the same word.
_OTHERS: Final = frozenset({
    "account.lock", "audit.enable", "authority.readmit_after", "authority.watch", "command.refused", "device.class",
    "device.id", "device.key", "device.pem", "device.tags", "key.restrict",
})  # fmt: skip


def test_the_page_lists_every_kind_with_its_sentence() -> None:
    page = (ROOT / "docs" / "audit.md").read_text()
    kinds, decisions = page.split("\n## Decisions\n")
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", kinds, re.MULTILINE)
    assert rows == [(kind.value, AUDIT_TEXTS[kind]) for kind in AuditKind]
    assert re.findall(r"^\| `([a-z_.]+)` \|", decisions, re.MULTILINE) == [decision.value for decision in DecisionKind]


def test_the_upgrade_page_has_a_new_value_for_every_old_kind() -> None:
    section = (ROOT / "docs" / "upgrade.md").read_text().split("\n### Audit kinds\n")[1].split("\n### ")[0]
    pairs = re.findall(r"^\| `([^`]+)` \| `([a-z_.]+)` \|$", section, re.MULTILINE)
    old, new = {kind for kind, _ in pairs}, {kind for _, kind in pairs}
    assert len(old) == len(new) == len(pairs) == OLD_KINDS
    assert new <= _KINDS


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_documents_name_kinds_that_exist(path: Path) -> None:
    assert set(_NAMED.findall(path.read_text())) - _OTHERS <= _KINDS


def test_every_kind_is_used() -> None:
    tables = {"audit_kinds.py", "audit_texts.py"}
    source = "\n".join(path.read_text() for path in python_files("controller") if path.name not in tables)
    assert [kind.name for kind in AuditKind if f"AuditKind.{kind.name}" not in source] == []
