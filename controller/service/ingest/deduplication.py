"""Deduplication: a report with the same bytes as the device's last accepted one is not parsed again.

The bytes are compared by a keyed hash; the digest in a report is only a claim of the device.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from controller.domain.device import Device

_MARK: Final = b'"sections":'
_NO_SECTIONS: Final = b'"sections":{}}'
_HASH_BYTES: Final = 16


class ReportDeduplicator:
    """One hash per device, over its sections and what they were evaluated by."""

    def __init__(self) -> None:
        self._last: dict[str, bytes] = {}
        self._computed: tuple[bytes, bytes] = (b"", b"")  # the last report and its hash

    def deduplicate(self, device: Device, policies: str, payload: bytes) -> bytes | None:
        """The report without its sections if they are those of the last one; else `None`."""
        last = self._last.get(device.device_id)
        if last is None:
            return None
        cut = payload.find(_MARK)
        if cut < 0:
            return None
        digest = _hash(device, policies, payload[cut:])
        self._computed = (payload, digest)
        if digest != last:
            return None
        return payload[:cut] + _NO_SECTIONS

    def forget(self, device_id: str) -> None:
        """Reads the device's next report whatever its bytes are."""
        self._last.pop(device_id, None)

    def remember(self, device: Device, policies: str, payload: bytes) -> None:
        """Makes this the device's last report; `policies` is the version that it was evaluated by."""
        hashed, digest = self._computed
        if hashed is payload:
            self._last[device.device_id] = digest
            return
        cut = payload.find(_MARK)
        if cut >= 0:
            self._last[device.device_id] = _hash(device, policies, payload[cut:])


def _hash(device: Device, policies: str, tail: bytes) -> bytes:
    return blake2b(tail, digest_size=_HASH_BYTES, key=_key(policies, device.device_class, device.tags)).digest()


@lru_cache(maxsize=1024)
def _key(policies: str, device_class: str, tags: tuple[str, ...]) -> bytes:
    # Class and tags are facts too: a change of them changes the results.
    return blake2b("\0".join((policies, device_class, *tags)).encode(), digest_size=_HASH_BYTES).digest()
