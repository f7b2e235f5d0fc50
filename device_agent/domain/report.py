"""Reports as they are sent (full, delta, heartbeat), from sections that are sanitised, truncated and validated.

The shapes are those of `schemas.posture`; its models are not needed to write them, and cost a small device megabytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.base import clean_text

MAX_HEADER_BYTES: Final = 1024  # of a report besides its sections
_MAX_REASON: Final = 200  # characters
_HASH_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The result of one scan: the sections as JSON within the size limit, and the digest before truncation.

    `challenge_nonce` is the controller's nonce that was known before the scan began, or empty.
    """

    sections: str
    digest: str
    challenge_nonce: str = ""


@dataclass(frozen=True, slots=True)
class ReportSender:
    """The sender, the same for every report of a run; `signing_key` is the public key of signed reports in base64."""

    device_id: str
    boot_id: str
    agent: str
    signing_key: str = ""


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """A report that the controller accepted: its digest, and a hash of each section as it was sent."""

    digest: str
    section_hashes: Mapping[str, bytes]


def full_report(
    sender: ReportSender, seq: int, now: datetime, content: ReportContent, receipt: str | None = None
) -> bytes:
    """Returns a full report; a signed one carries `receipt`, the digest of the last confirmed report."""
    more = {"boot_id": sender.boot_id, "agent": sender.agent, "answers": content.challenge_nonce}
    if sender.signing_key:
        more |= {"signing_key": sender.signing_key} | ({"receipt": receipt} if receipt else {})
    header = _header(sender, seq, now, content.digest, "full") | more
    return f'{_to_json(header)[:-1]},"sections":{content.sections}}}'.encode()


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
    delta = _to_json(document).encode()
    return delta if len(delta) < len(full) else None


def heartbeat(sender: ReportSender, seq: int, now: datetime, digest: str) -> bytes:
    """Returns a heartbeat: nothing changed since the report with this digest."""
    return _to_json(_header(sender, seq, now, digest, "heartbeat")).encode()


def all_sections_unavailable(sections: Iterable[str], reason: str) -> ReportContent:
    """Returns the content of a failed scan: every section is unknown, for this reason."""
    from schemas.posture import digest_of  # large, and seldom needed

    unknown = {name: {"state": "unknown", "reason": clean_text(reason, _MAX_REASON)} for name in sections}
    return ReportContent(_to_json(unknown), digest_of(unknown))


def _header(sender: ReportSender, seq: int, now: datetime, digest: str, kind: str) -> dict[str, Any]:
    at = now.isoformat().replace("+00:00", "Z")
    return {"v": 1, "device_id": sender.device_id, "seq": seq, "sent_at": at, "digest": digest, "kind": kind}


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _section_hash(section: Any) -> bytes:
    return hashlib.blake2b(json.dumps(section, sort_keys=True).encode(), digest_size=_HASH_BYTES).digest()
