"""Knowledge for tests: entries of some releases, as they are on one day."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from controller.adapters.policies.knowledge import parse_knowledge
from controller.domain.policy.knowledge import Knowledge, KnowledgeEntry, KnowledgeKind, KnowledgeOnDay
from controller.packs import shipped_knowledge

TODAY: Final = date(2026, 11, 30)


def support(ends: Mapping[str, int | None], day: date = TODAY, good_for: int = 90) -> KnowledgeOnDay:
    """Knowledge that was verified on `TODAY`, on `day`; `ends`: days after `TODAY`, by name and version."""
    return Knowledge(1, TODAY, tuple(_entry(label, days, good_for) for label, days in ends.items()), str(ends)).on(day)


def _entry(label: str, days: int | None, good_for: int) -> KnowledgeEntry:
    name, _, version = label.partition(" ")
    kind = KnowledgeKind.PROGRAM if name == "openssl" else KnowledgeKind.OS
    end = None if days is None else TODAY + timedelta(days=days)
    return KnowledgeEntry(kind, name, version, end, "https://example.org/life", TODAY, good_for)


def shipped(day: date = TODAY) -> KnowledgeOnDay:
    """The knowledge that ships with Cordon, on a day."""
    return parse_knowledge(shipped_knowledge()).on(day)
