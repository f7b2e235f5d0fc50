"""Recognises a report that says, byte for byte, what the device's last accepted one said, so that it is not read again.

What is compared are the bytes themselves, by a hash of ours; the digest in a report is only the device's word.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from controller.domain.device import Device

_MARK: Final = b'"sections":'
_NO_SECTIONS: Final = b'"sections":{}}'
_HASH_BYTES: Final = 16


class ReportDeduplicator:
    """One hash for each device, of the sections it sent and of what they were judged by."""

    def __init__(self) -> None:
        self._last: dict[str, bytes] = {}
        self._computed: tuple[bytes, bytes] = (b"", b"")  # the report that was last looked at, and its hash

    def shortened(self, device: Device, policies: str, payload: bytes) -> bytes | None:
        """The report without its sections, if they are the same as last time; else `None`: read all of it."""
        last = self._last.get(device.device_id)
        if last is None:
            return None
        cut = payload.find(_MARK)
        if cut < 0:
            return None
        found = _hash(device, policies, payload[cut:])
        self._computed = (payload, found)
        if found != last:
            return None
        return payload[:cut] + _NO_SECTIONS

    def accepted(self, device: Device, policies: str, payload: bytes) -> None:
        """This report, read in full, is the device's last one now; `policies` names what it was judged by."""
        looked_at, found = self._computed
        if looked_at is payload:
            self._last[device.device_id] = found
            return
        cut = payload.find(_MARK)
        if cut >= 0:
            self._last[device.device_id] = _hash(device, policies, payload[cut:])


def _hash(device: Device, policies: str, tail: bytes) -> bytes:
    return blake2b(tail, digest_size=_HASH_BYTES, key=_key(policies, device.device_class, device.tags)).digest()


@lru_cache(maxsize=1024)
def _key(policies: str, device_class: str, tags: tuple[str, ...]) -> bytes:
    # Class and tags are facts too: an operator who changes them changes the judgement.
    return blake2b("\0".join((policies, device_class, *tags)).encode(), digest_size=_HASH_BYTES).digest()
