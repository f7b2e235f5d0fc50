"""Messages given to a controller's ingest, and the receipts that it sent."""

import json
from typing import Any

from controller.ports.broker import AuthStrength
from schemas.topics import DownChannel, down
from tests.support.controller_harness import START, ControllerHarness
from tests.support.reports import incoming
from tests.support.signing_device import SigningDevice


def receipts_sent(harness: ControllerHarness, device_id: str = "edge-1") -> list[dict[str, Any]]:
    topic = down(device_id, DownChannel.RECEIPT)
    return [json.loads(payload) for to, payload in harness.link.sent if to == topic]


async def verdicts(
    harness: ControllerHarness, *payloads: bytes, device_id: str = "edge-1"
) -> list[tuple[str, str | None]]:
    """Verdict and reason of each receipt for these messages, taken as one batch."""
    before = len(receipts_sent(harness, device_id))
    await harness.ingest.process_batch([incoming(device_id, payload) for payload in payloads])
    return [(one["verdict"], one.get("reason")) for one in receipts_sent(harness, device_id)[before:]]


async def register_signing_key(harness: ControllerHarness, device: SigningDevice, seq: int = 1) -> None:
    """The first authenticated contact of the device, and its first report."""
    harness.broker.grades[device.device_id] = AuthStrength.PROVEN
    report = device.full(seq, START, 22)
    assert await verdicts(harness, report, device_id=device.device_id) == [("rejected", "too_many")]
    await harness.signing.keyring.refresh_pending()
    assert await verdicts(harness, report, device_id=device.device_id) == [("accepted", None)]
