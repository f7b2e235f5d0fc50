"""Delta reports: only the sections that changed since a report that the controller confirmed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_HASH_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """A report that the controller accepted: its digest, and a hash of each section as it was sent."""

    digest: str
    section_hashes: Mapping[str, bytes]


def delta_base(full: bytes) -> DeltaBase:
    """Returns what a later delta needs of a full report: a few hundred bytes."""
    document = json.loads(full)
    hashes = {name: _section_hash(section) for name, section in document["sections"].items()}
    return DeltaBase(document["digest"], hashes)


def make_delta(full: bytes, base: DeltaBase) -> bytes | None:
    """Returns a report as a delta to `base`; None where that is impossible or saves nothing."""
    document = json.loads(full)
    sections: dict[str, Any] = document["sections"]
    hashes = base.section_hashes
    # A delta cannot express a missing section, and one to the same digest carries nothing.
    if document["digest"] == base.digest or hashes.keys() - sections.keys():
        return None
    changed = {name: section for name, section in sections.items() if hashes.get(name) != _section_hash(section)}
    document |= {"kind": "delta", "base": base.digest, "sections": changed}
    delta = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return delta if len(delta) < len(full) else None


def _section_hash(section: Any) -> bytes:
    return hashlib.blake2b(json.dumps(section, sort_keys=True).encode(), digest_size=_HASH_BYTES).digest()
