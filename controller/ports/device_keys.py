"""The public keys by which devices sign their reports, by the keys' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.report_signing import PublicKey

SUPERSEDED: Final = "a newer one of this device has signed since"


@dataclass(frozen=True, slots=True)
class CertifiedKeys:
    """What the registry says of one device: keys that count, of the oldest certificate first, and why others do not.

    Both are by the keys' names.
    """

    keys: Mapping[str, PublicKey]
    over: Mapping[str, str]


class DeviceKeys(Protocol):
    """Looked at for every signed report, so it answers from memory."""

    def of(self, device_id: str) -> Mapping[str, PublicKey] | None:
        """The keys that hold; empty when there are none, `None` while that is being found out."""
        ...

    def why_not(self, device_id: str, keyid: str) -> str:
        """Why a key that is not among those of `of` does not count, in words."""
        ...

    def signed(self, device_id: str, keyid: str) -> None:
        """A report by this key was taken: the keys of the certificates before it are former ones from now on."""
        ...

    def wanted(self, device_id: str, keyid: str, offered: bytes, named: str = "") -> None:
        """A report was signed with a key that is not known: find out; `offered` is the key as the report brought it,
        `named` the device that it says it is of.
        """
        ...
