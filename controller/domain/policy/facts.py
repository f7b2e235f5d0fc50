"""Extracts the flat, typed facts that rules refer to from a report's sections; a missing fact has a reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from pydantic import BaseModel

from controller.domain.policy import facts_access, facts_crypto, facts_software, facts_system, facts_tools
from controller.domain.policy.findings import RuleResult
from schemas.base import Unavailable
from schemas.posture import ReportSections
from schemas.sections.system import SocketsSection

# Every fact: its type, its section ("" for facts of the controller), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "device.id": ("string", "", "the device's id"),
    "device.class": ("string", "", "the class an operator gave the device, or empty"),
    "device.tags": ("list(string)", "", "the tags an operator gave the device"),
    **facts_software.CATALOGUE,
    **facts_crypto.CATALOGUE,
    **facts_system.CATALOGUE,
    **facts_access.CATALOGUE,
    **facts_tools.CATALOGUE,
}
_MAX_PROBLEMS: Final = 3  # in the reason of a missing fact
TYPES: Final = {name: kind for name, (kind, _, _) in CATALOGUE.items()}
_READERS: Final = (
    *facts_software.READERS,
    *facts_crypto.READERS,
    *facts_system.READERS,
    *facts_access.READERS,
    *facts_tools.READERS,
)
_COMPLETE: Final = facts_tools.COMPLETE | facts_system.COMPLETE | facts_access.COMPLETE
_FIELDS: Final = {**facts_system.FIELDS, **facts_access.FIELDS}
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

    `partial`: list facts of which the device sent only a part; they can show presence, never absence.
    """

    known: Mapping[str, Any]
    missing: Mapping[str, MissingFact]
    partial: Mapping[str, str]


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


def gather_facts(
    sections: ReportSections, device_id: str, device_class: str, tags: tuple[str, ...], wanted: frozenset[str] = _ALL
) -> DeviceFacts:
    """Returns the `wanted` facts of a full report, with a reason for each missing one.

    `DeviceFacts.partial` may contain facts that are not wanted.
    """
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
            for fact, value in part.read(section).items():
                if fact not in part.wanted:
                    continue
                if value is None:
                    missing[fact] = _missing_reason(section, fact)
                else:
                    known[fact] = value
            kind: type[BaseModel] = type(section)
            truncated = section.truncated if _is_truncatable(kind) else 0
            if name in _PARTIAL:
                partial.update(_PARTIAL[name](section))
            # `_PARTIAL` covers the lists of these two sections; their other facts are counted before truncation.
            if truncated and name not in ("updates", "openssl"):
                incomplete = [fact for fact in _FACTS_OF[name] if fact not in _COMPLETE]
                partial.update(dict.fromkeys(incomplete, f"{name}: {truncated} more entries were not sent"))
            elif isinstance(section, SocketsSection):
                hidden = sum(1 for socket in section.listening if not socket.process)
                if hidden:
                    partial["listening_processes"] = f"{name}: the process behind {hidden} of them is not visible"
    return DeviceFacts(known, missing, partial)


@cache
def _is_truncatable(section: type[BaseModel]) -> bool:
    return "truncated" in section.model_fields


@cache
def _problem_fields(section: type[BaseModel]) -> tuple[str, ...]:
    # Called for each missing fact; pydantic models raise AttributeError slowly.
    return tuple(name for name in ("problems", "gaps") if name in section.model_fields)


def _missing_reason(section: Any, fact: str) -> MissingFact:
    """Returns why a fact has no value: the device's problem with this field, else its problems with the section."""
    problems: tuple[str, ...] = ()
    kind: type[BaseModel] = type(section)
    for name in _problem_fields(kind):
        problems = problems or getattr(section, name)
    if not problems:
        return _NOT_DETERMINED[fact]
    field = f"{_FIELDS.get(fact, fact)}: "
    own = tuple(problem.removeprefix(field) for problem in problems if problem.startswith(field))
    return MissingFact(RuleResult.UNKNOWN, f"{fact}: {'; '.join((own or problems)[:_MAX_PROBLEMS])}")
