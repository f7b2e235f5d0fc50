"""The public keys with which devices sign their reports, by key id."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.report_signing import PublicKey

SUPERSEDED: Final = "a newer one of this device has signed since"


@dataclass(frozen=True, slots=True)
class CertifiedKeys:
    """A device's keys in the registry by key id: the valid ones, oldest certificate first, and why others are over."""

    keys: Mapping[str, PublicKey]
    over: Mapping[str, str]


class DeviceKeys(Protocol):
    """Keys in memory: every signed report is verified with them."""

    def keys_for(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """The valid keys; empty if there are none, `None` while they are being looked up."""
        ...

    def rejection_reason(self, device_id: str, keyid: str) -> str:
        """Why a key that is not among those of `keys_for` is not valid."""
        ...

    def record_use(self, device_id: str, keyid: str) -> None:
        """Records that a report with this key was accepted: keys of older certificates are superseded."""
        ...

    def request_lookup(self, device_id: str, keyid: str, offered: bytes, named: str = "") -> None:
        """Requests the lookup of an unknown key: `offered` in a report that claims to be of the device `named`."""
        ...
