"""Turns a delta into the full report it stands for, so that what is stored and judged is always the whole."""

import json

from schemas.base import MAX_POSTURE_BYTES
from schemas.posture import DeltaReport


def merge(stored: bytes, payload: bytes, delta: DeltaReport) -> bytes | None:
    """The full report after a delta; None where `stored` is not what it refers to, or the whole is too large.

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
