"""Leaves out of a report what the controller holds already: only sections that changed since its receipt travel."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """A report that the controller accepted: its digest, and a hash of each section as it was sent."""

    digest: str
    marks: Mapping[str, bytes]


def base_of(full: bytes) -> DeltaBase:
    """What a later delta needs to know of a full report; a few hundred bytes."""
    document = json.loads(full)
    return DeltaBase(document["digest"], {name: _mark(section) for name, section in document["sections"].items()})


def delta_of(full: bytes, base: DeltaBase) -> bytes | None:
    """The same report as a delta to `base`; None where it cannot be one or would save nothing."""
    document = json.loads(full)
    sections: dict[str, Any] = document["sections"]
    # What is gone could not be said, and a delta to the same digest says nothing.
    if document["digest"] == base.digest or base.marks.keys() - sections.keys():
        return None
    changed = {name: section for name, section in sections.items() if base.marks.get(name) != _mark(section)}
    document |= {"kind": "delta", "base": base.digest, "sections": changed}
    delta = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return delta if len(delta) < len(full) else None


def _mark(section: Any) -> bytes:
    return hashlib.blake2b(json.dumps(section, sort_keys=True).encode(), digest_size=_MARK_BYTES).digest()
