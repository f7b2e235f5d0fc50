"""The public keys by which devices sign their reports, by the keys' names."""

from collections.abc import Mapping
from typing import Protocol

from schemas.report_signing import PublicKey


class DeviceKeys(Protocol):
    """Looked at for every signed report, so it answers from memory."""

    def of(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """The keys that hold; empty when there are none, `None` while that is being found out."""
        ...

    def wanted(self, device_id: str, keyid: str, offered: bytes) -> None:
        """A report was signed with a key that is not known: find out; `offered` is the key as the report brought it."""
        ...
