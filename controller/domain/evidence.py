"""How the sender of a message is authenticated: an unauthenticated message never contains a device."""

from enum import StrEnum
from typing import Final


class Evidence(StrEnum):
    """The authentication of a message's sender, carried from the message to the decision, the receipt and the audit.

    `signed`: signature by the device's own key. `mutual-tls`: the session has a verified client certificate that names
    the device. `password`: an authenticator of the broker admitted the session. `claimed`: only the client's own claim.
    `unasked`: the message shows nothing, and the broker was not asked about its session yet.
    """

    SIGNED = "signed"
    MUTUAL_TLS = "mutual-tls"
    PASSWORD = "password"  # noqa: S105 - a grade, not a secret
    CLAIMED = "claimed"
    UNASKED = "unasked"

    @property
    def may_contain(self) -> bool:
        """Whether it is strong enough to contain a device, so that no attacker can lock another device out."""
        return self in _MAY_CONTAIN

    @property
    def rank(self) -> int:
        """0 for `unasked`; higher is stronger."""
        return _RANKS[self]


_RANKS: Final = {
    Evidence.UNASKED: 0,
    Evidence.CLAIMED: 1,
    Evidence.PASSWORD: 2,
    Evidence.MUTUAL_TLS: 3,
    Evidence.SIGNED: 4,
}
_MAY_CONTAIN: Final = frozenset({Evidence.SIGNED, Evidence.MUTUAL_TLS, Evidence.PASSWORD})
