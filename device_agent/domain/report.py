"""Reports as they travel, from sections that were cleaned, cut and checked where they were found.

The shapes are those of `schemas.posture`; its models are not needed to write them, and cost a small device megabytes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.base import clean_text

MAX_HEAD_BYTES: Final = 1024  # of a report around its sections
_MAX_REASON: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class ReportContent:
    """One scan: the sections as JSON, fit to travel, and the digest of all that was found before anything was cut.

    `answers`: the controller's nonce that was there before the scan began; empty when there was none.
    """

    sections: str
    digest: str
    answers: str = ""


@dataclass(frozen=True, slots=True)
class ReportSender:
    """Who reports: the same for every report of a run."""

    device_id: str
    boot_id: str
    agent: str
    signing_key: str = ""  # the public half in base64, of an agent that signs


def full_report(
    sender: ReportSender, seq: int, now: datetime, found: ReportContent, receipt: str | None = None
) -> bytes:
    """A full report; `receipt`: the digest of the last report with a receipt, told by an agent that signs."""
    more = {"boot_id": sender.boot_id, "agent": sender.agent, "answers": found.answers}
    if sender.signing_key:
        more |= {"signing_key": sender.signing_key} | ({"receipt": receipt} if receipt else {})
    head = _head(sender, seq, now, found.digest, "full") | more
    return f'{_text(head)[:-1]},"sections":{found.sections}}}'.encode()


def heartbeat(sender: ReportSender, seq: int, now: datetime, digest: str) -> bytes:
    """A heartbeat: nothing changed since the report of this digest."""
    return _text(_head(sender, seq, now, digest, "heartbeat")).encode()


def nothing_found(sections: Iterable[str], reason: str) -> ReportContent:
    """What to report when looking failed as a whole: every section is unknown, for this reason."""
    from schemas.posture import digest_of  # seldom

    unknown = {name: {"state": "unknown", "reason": clean_text(reason, _MAX_REASON)} for name in sections}
    return ReportContent(_text(unknown), digest_of(unknown))


def _head(sender: ReportSender, seq: int, now: datetime, digest: str, kind: str) -> dict[str, Any]:
    at = now.isoformat().replace("+00:00", "Z")
    return {"v": 1, "device_id": sender.device_id, "seq": seq, "sent_at": at, "digest": digest, "kind": kind}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
