"""Merges a delta with the stored report: only full reports are stored and evaluated."""

import json

from schemas.base import MAX_POSTURE_BYTES
from schemas.posture import DeltaReport


def merge(stored: bytes, payload: bytes, delta: DeltaReport) -> bytes | None:
    """The full report after a delta; `None` if `stored` is not its base, or the result is too large.

    Args:
        stored: the last accepted full report as it came; fields that this version does not know survive in it.
        payload: the delta as it came.
        delta: the same, validated.
    """
    try:
        base, changes = json.loads(stored), json.loads(payload)
        if base["digest"] != delta.base:
            return None
        whole = {key: value for key, value in changes.items() if key != "base"}
        whole |= {"kind": "full", "sections": {**base["sections"], **changes["sections"]}}
    except (ValueError, KeyError, TypeError):
        return None
    merged = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
    return merged if len(merged) <= MAX_POSTURE_BYTES else None
