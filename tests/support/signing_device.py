"""Reports that a device signs."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from schemas.posture import digest_of
from schemas.report_signing import PrivateKey, public_key_der, sign_report
from tests.support import reports


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class SigningDevice:
    """A device and its key."""

    def __init__(self, device_id: str = "edge-1", key: PrivateKey | None = None) -> None:
        self.device_id = device_id
        self.key: PrivateKey = key or ec.generate_private_key(ec.SECP256R1())

    def full(self, seq: int, at: float, *ports: int, **more: Any) -> bytes:
        """A signed full report of `at` (Unix seconds), with the public key."""
        return sign_report(self.plain(seq, at, *ports, **more), self.key)

    def plain(self, seq: int, at: float, *ports: int, **more: Any) -> bytes:
        """The same report without the envelope."""
        body = reports.sections(*ports)
        report = {
            "v": 1, "kind": "full", "device_id": self.device_id, "seq": seq, "sent_at": moment(at), "boot_id": "boot",
            "agent": "1.0.0", "digest": digest_of(body), "answers": "",
            "signing_key": base64.b64encode(public_key_der(self.key.public_key())).decode(), **more, "sections": body,
        }  # fmt: skip
        return json.dumps(report, separators=(",", ":")).encode()

    def beat(self, seq: int, at: float, *ports: int) -> bytes:
        """A signed heartbeat."""
        beat = {
            "v": 1, "kind": "heartbeat", "device_id": self.device_id, "seq": seq, "sent_at": moment(at),
            "digest": digest_of(reports.sections(*ports)),
        }  # fmt: skip
        return sign_report(json.dumps(beat).encode(), self.key)
