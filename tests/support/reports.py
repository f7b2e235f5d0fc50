"""Messages of a device as bytes, for tests of whoever reads them."""

import json
from typing import Any

from controller.ports.messages import IncomingMessage
from schemas.posture import digest_of
from schemas.topics import UpChannel, up

SENT_AT = "2026-11-23T10:00:00Z"


def sections(*ports: int, **others: Any) -> dict[str, Any]:
    """A Debian device that listens on `ports`."""
    listening = [{"proto": "tcp", "address": "0.0.0.0", "port": port, "process": "x"} for port in ports]
    body: dict[str, Any] = {
        "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1.0-41-amd64", "machine": "x86_64"},
        "sockets": {"state": "ok", "listening": listening, "truncated": 0},
    }
    return {**body, **others}


def full(device_id: str, seq: int, *ports: int, boot_id: str = "boot", **others: Any) -> bytes:
    """A full report."""
    body = sections(*ports, **others)
    report = {
        "v": 1, "kind": "full", "device_id": device_id, "seq": seq, "sent_at": SENT_AT, "boot_id": boot_id,
        "agent": "1.0.0", "digest": digest_of(body), "sections": body,
    }  # fmt: skip
    return json.dumps(report).encode()


def delta(seq: int, was: dict[str, Any], whole: dict[str, Any], *, boot_id: str = "boot", **more: Any) -> bytes:
    """A delta of `edge-1` from the sections `was` to the sections `whole`."""
    changed = {name: section for name, section in whole.items() if was.get(name) != section}
    report = {
        "v": 1, "kind": "delta", "device_id": "edge-1", "seq": seq, "sent_at": SENT_AT, "boot_id": boot_id,
        "agent": "1.0.0", "digest": digest_of(whole), "base": digest_of(was), "sections": changed,
    }  # fmt: skip
    return json.dumps({**report, **more}).encode()


def heartbeat(device_id: str, seq: int, digest: str) -> bytes:
    """A heartbeat."""
    beat = {"v": 1, "kind": "heartbeat", "device_id": device_id, "seq": seq, "sent_at": SENT_AT, "digest": digest}
    return json.dumps(beat).encode()


def incoming(
    device_id: str, payload: bytes, channel: UpChannel = UpChannel.POSTURE, *, retain: bool = False, at: float = 0.0
) -> IncomingMessage:
    """A delivery of it, off the socket `at` monotonic seconds."""
    return IncomingMessage(up(device_id, channel), payload, 1, retain, False, 1, at)
