"""Extracts the flat, typed facts that rules refer to from a report's sections; a missing fact has a reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from controller.domain.policy import facts_access, facts_crypto, facts_software, facts_system, facts_tools
from controller.domain.policy import knowledge as known_support
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.knowledge import NO_KNOWLEDGE, KnowledgeEntry, KnowledgeOnDay
from schemas.base import CollectedSection, Unavailable
from schemas.posture import ReportSections
from schemas.sections.system import SocketsSection

# Every fact: its type, its section ("" for facts of the controller), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "device.id": ("string", "", "the device's id"),
    "device.class": ("string", "", "the class an operator gave the device, or empty"),
    "device.tags": ("list(string)", "", "the tags an operator gave the device"),
    **known_support.CATALOGUE,
    **facts_software.CATALOGUE,
    **facts_crypto.CATALOGUE,
    **facts_system.CATALOGUE,
    **facts_access.CATALOGUE,
    **facts_tools.CATALOGUE,
}
FALLING_FACTS: Final = facts_crypto.FALLING
"""Facts that become smaller when their section gets more entries; all others become larger or longer."""
_MAX_REASONS: Final = 3  # in the reason of a missing fact
TYPES: Final = {name: kind for name, (kind, _, _) in CATALOGUE.items()}
_READERS: Final = (
    *facts_software.READERS,
    *facts_crypto.READERS,
    *facts_system.READERS,
    *facts_access.READERS,
    *facts_tools.READERS,
)
_COMPLETE: Final = facts_tools.COMPLETE | facts_system.COMPLETE | facts_access.COMPLETE
# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **facts_software.FIELDS,
    **facts_crypto.FIELDS,
    **facts_system.FIELDS,
    **facts_access.FIELDS,
    **facts_tools.FIELDS,
}
# Numbers made of list entries: with a part of the entries they show a lower bound, as a list shows presence.
_GROWING: Final = facts_crypto.GROWING | facts_access.GROWING | facts_tools.GROWING
# Names in gaps that explain single entries, which say themselves what was not checked.
_EXPLANATIONS: Final = facts_crypto.EXPLANATIONS
_PARTIAL: Final = {**facts_software.PARTIAL, **facts_crypto.PARTIAL}
_FACTS_OF: Final = {
    section: tuple(name for name, (_, owner, _) in CATALOGUE.items() if owner == section) for section, _ in _READERS
}


@dataclass(frozen=True, slots=True)
class MissingFact:
    """Why a fact has no value: `result` is unknown or notapplicable."""

    result: RuleResult
    reason: str


_ALL: Final = frozenset(CATALOGUE)
_NOT_DETERMINED: Final = {
    fact: MissingFact(RuleResult.UNKNOWN, f"{fact}: not determined by the device") for fact in CATALOGUE
}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The facts of one device.

    `partial`: list facts of which the device sent only a part; they can show presence, never absence. `rests_on`: the
    entries of the knowledge behind a fact.
    """

    known: Mapping[str, Any]
    missing: Mapping[str, MissingFact]
    partial: Mapping[str, str]
    rests_on: Mapping[str, tuple[KnowledgeEntry, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """`DeviceFacts` while they are collected."""

    known: dict[str, Any]
    missing: dict[str, MissingFact]
    partial: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Part:
    """A section, its reader and the wanted facts; `not_reported` is shared, because most reports lack the same
    sections.
    """

    name: str
    read: Callable[[Any], Mapping[str, Any]]
    wanted: frozenset[str]
    not_reported: Mapping[str, MissingFact]


@lru_cache(maxsize=16)
def _parts(wanted: frozenset[str]) -> tuple[_Part, ...]:
    parts = []
    for name, read in _READERS:
        facts = wanted & frozenset(_FACTS_OF[name])
        if facts:
            reason = MissingFact(RuleResult.UNKNOWN, f"{name}: not reported")
            parts.append(_Part(name, read, facts, dict.fromkeys(facts, reason)))
    return tuple(parts)


@lru_cache(maxsize=64)
def _with_needs(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns the wanted facts that rest on knowledge, and all that are read for the wanted ones."""
    by_knowledge = tuple(name for name in known_support.CATALOGUE if name in wanted)
    return by_knowledge, wanted | known_support.NEEDS if by_knowledge else wanted


def gather_facts(
    sections: ReportSections,
    device_id: str,
    device_class: str,
    tags: tuple[str, ...],
    wanted: frozenset[str] = _ALL,
    knowledge: KnowledgeOnDay = NO_KNOWLEDGE,
) -> DeviceFacts:
    """Returns the `wanted` facts of a full report, with a reason for each missing one.

    `DeviceFacts` may contain facts that are not wanted.
    """
    by_knowledge, wanted = _with_needs(wanted)
    known: dict[str, Any] = {"device.id": device_id, "device.class": device_class, "device.tags": list(tags)}
    missing: dict[str, MissingFact] = {}
    partial: dict[str, str] = {}
    for part in _parts(wanted):
        name = part.name
        section = getattr(sections, name)
        if section is None:
            missing.update(part.not_reported)
        elif isinstance(section, Unavailable):
            reason = MissingFact(RuleResult(section.state), f"{name}: {section.reason}")
            missing.update(dict.fromkeys(part.wanted, reason))
        else:
            _read_section(part, section, _Gathered(known, missing, partial))
    if not by_knowledge:
        return DeviceFacts(known, missing, partial)
    rests_on = {name: _add_known_support(name, knowledge, known, missing) for name in by_knowledge}
    return DeviceFacts(known, missing, partial, rests_on)


def _add_known_support(
    name: str, knowledge: KnowledgeOnDay, known: dict[str, Any], missing: dict[str, MissingFact]
) -> tuple[KnowledgeEntry, ...]:
    """Adds a fact that rests on knowledge, or why it is missing; returns the entries behind it."""
    lacking = next((missing[fact] for fact in known_support.REQUIRED[name] if fact in missing), None)
    if lacking is not None:
        missing[name] = MissingFact(RuleResult.UNKNOWN, lacking.reason)
        return ()
    found = knowledge.answer(name, known)
    if found.value is None:
        missing[name] = MissingFact(RuleResult.UNKNOWN, f"{name}: {found.reason}")
    else:
        known[name] = found.value
    return found.entries


def _read_section(part: _Part, section: Any, facts: _Gathered) -> None:
    name = part.name
    if section.partial:
        section = _with_partial_lists(section)
    reasons = _reasons_by_fact(name, section) if section.gaps else {}
    for fact, value in part.read(section).items():
        if fact not in part.wanted:
            continue
        if value is not None and fact not in reasons:
            facts.known[fact] = value
        elif value is not None and (fact in _GROWING or TYPES[fact].startswith("list")):
            facts.known[fact] = value
            facts.partial[fact] = reasons[fact]
        else:
            facts.missing[fact] = _missing_reason(section, fact, reasons)
    kind: type[BaseModel] = type(section)
    truncated = section.truncated if _is_truncatable(kind) else 0
    if name in _PARTIAL:
        facts.partial.update({**_PARTIAL[name](section), **facts.partial})
    # `_PARTIAL` covers the lists of these two sections; their other facts are counted before truncation.
    if truncated and name not in ("updates", "openssl"):
        incomplete = [fact for fact in _FACTS_OF[name] if fact not in _COMPLETE]
        facts.partial.update(dict.fromkeys(incomplete, f"{name}: {truncated} more entries were not sent"))
    elif isinstance(section, SocketsSection):
        hidden = sum(1 for socket in section.listening if not socket.process)
        if hidden:
            facts.partial["listening_processes"] = f"{name}: the process behind {hidden} of them is not visible"


def _with_partial_lists(section: CollectedSection) -> CollectedSection:
    """Returns the section with the entries of its incomplete lists; unchanged if they do not fit their fields."""
    partial = {name: value for name, value in (section.partial or {}).items() if not getattr(section, name, None)}
    marked = {gap.fact for gap in section.gaps}
    try:
        values = {**section.model_dump(), **{name: value for name, value in partial.items() if name in marked}}
        return type(section).model_validate(values)
    except ValidationError:
        return section


def _reasons_by_fact(name: str, section: CollectedSection) -> dict[str, str]:
    """Returns why facts are incomplete; a gap in something that this version does not know concerns all of them."""
    fields: Mapping[str, object] = type(section).model_fields
    reasons: dict[str, str] = {}
    for gap in section.gaps:
        reason = f"{gap.source}: {gap.reason}" if gap.source else gap.reason
        concerned = [fact for fact in _FACTS_OF[name] if gap.fact in FIELDS[fact]]
        if not concerned and gap.fact not in fields and gap.fact not in _EXPLANATIONS:
            concerned = list(_FACTS_OF[name])
        for fact in concerned:
            reasons.setdefault(fact, f"{fact}: {reason}")
    return reasons


@cache
def _is_truncatable(section: type[BaseModel]) -> bool:
    return "truncated" in section.model_fields


def _missing_reason(section: CollectedSection, fact: str, reasons: Mapping[str, str]) -> MissingFact:
    """Returns why a fact has no value: the device's gap in it, else its gaps in the section."""
    if fact in reasons:
        return MissingFact(RuleResult.UNKNOWN, reasons[fact])
    if not section.gaps:
        return _NOT_DETERMINED[fact]
    others = "; ".join(f"{gap.fact}: {gap.reason}" for gap in section.gaps[:_MAX_REASONS])
    return MissingFact(RuleResult.UNKNOWN, f"{fact}: {others}")
