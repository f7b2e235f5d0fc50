"""How the identity behind a signal was proved: what is merely claimed never contains anyone."""

from enum import StrEnum
from typing import Final


class Evidence(StrEnum):
    """Who says so: carried from the signal to the decision, the receipt and the record.

    `signed`: the payload bears a signature by the device's own key. `mutual-tls`: the session came in with a verified
    client certificate that names the device. `password`: an authenticator of the broker let the session in.
    `claimed`: nothing but the client's word. `unasked`: the signal itself shows nothing, and the broker was not asked
    about its session yet.
    """

    SIGNED = "signed"
    MUTUAL_TLS = "mutual-tls"
    PASSWORD = "password"  # noqa: S105 - a grade, not a secret
    CLAIMED = "claimed"
    UNASKED = "unasked"

    @property
    def may_contain(self) -> bool:
        """Whether it shows well enough whose signal it is; an attacker must not be able to lock a victim out."""
        return self in _MAY_CONTAIN

    @property
    def rank(self) -> int:
        """0 for nothing known; a higher one is the better proof."""
        return _RANKS[self]


_RANKS: Final = {
    Evidence.UNASKED: 0,
    Evidence.CLAIMED: 1,
    Evidence.PASSWORD: 2,
    Evidence.MUTUAL_TLS: 3,
    Evidence.SIGNED: 4,
}
_MAY_CONTAIN: Final = frozenset({Evidence.SIGNED, Evidence.MUTUAL_TLS, Evidence.PASSWORD})
