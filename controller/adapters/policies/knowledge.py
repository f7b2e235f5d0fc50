"""Reads knowledge files: JSON with the support of releases, each entry with source and date."""

import hashlib
from datetime import date
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from controller.domain.policy.knowledge import Knowledge, KnowledgeEntry, KnowledgeKind
from controller.ports.policies import KnowledgeError

MAX_KNOWLEDGE_BYTES: Final = 256 * 1024
MAX_ENTRIES: Final = 1000
MAX_GOOD_FOR: Final = 3660  # days
GOOD_FOR: Final = 90  # days, of an entry that does not say otherwise
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
_Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$|^$")]
_Source = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntryModel(_Model):
    """A release or branch; `ends` is the last day with fixes."""

    kind: KnowledgeKind
    name: _Name
    version: _Version
    ends: date | Literal["rolling"]
    source: _Source
    verified: date
    good_for: Annotated[int, Field(ge=1, le=MAX_GOOD_FOR)] = GOOD_FOR


class KnowledgeModel(_Model):
    """A knowledge file; `version` grows with each issue."""

    knowledge: Literal["support"]
    version: Annotated[int, Field(ge=1, le=10**12)]
    issued: date
    entries: Annotated[tuple[EntryModel, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


def parse_knowledge(raw: bytes) -> Knowledge:
    """Parses a knowledge file.

    Raises:
        KnowledgeError: too large, not such a file, two entries about the same release, or one that was verified after
            the file was issued.
    """
    if len(raw) > MAX_KNOWLEDGE_BYTES:
        raise KnowledgeError(f"a knowledge file has at most {MAX_KNOWLEDGE_BYTES} bytes")
    try:
        model = KnowledgeModel.model_validate_json(raw)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise KnowledgeError(f"not a knowledge file: {where + ': ' if where else ''}{first['msg']}") from e
    entries = tuple(_entry(one) for one in model.entries)
    seen: set[tuple[KnowledgeKind, str, str]] = set()
    for entry in entries:
        if (entry.kind, entry.name, entry.version) in seen:
            raise KnowledgeError(f"not a knowledge file: two entries are about {entry.label}")
        if entry.verified > model.issued:
            raise KnowledgeError(f"not a knowledge file: {entry.label} was verified after the file was issued")
        seen.add((entry.kind, entry.name, entry.version))
    return Knowledge(model.version, model.issued, entries, hashlib.sha256(raw).hexdigest())


def _entry(one: EntryModel) -> KnowledgeEntry:
    ends = None if one.ends == "rolling" else one.ends
    return KnowledgeEntry(one.kind, one.name, one.version, ends, one.source, one.verified, one.good_for)
