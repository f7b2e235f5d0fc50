"""Sessions: an account that signed in, with a secret of which only the digest is stored."""

from dataclasses import dataclass
from typing import Final

IDLE: Final = 1_800.0  # seconds without a request after which a session ends
ABSOLUTE: Final = 43_200.0  # seconds after which it ends in any case
MAX_SESSIONS: Final = 20  # of one account with a second factor, and without; the one used longest ago ends first
TOUCH: Final = 60.0  # seconds; last use of sessions and tokens is stored no more often
SESSION_DIGITS: Final = 32  # hex digits of the digest that name a session
MAX_AGENT: Final = 200  # characters kept of the browser's name


@dataclass(frozen=True, slots=True)
class Session:
    """A session; times in Unix seconds. `factor_at`: of the last second factor in it, 0 without one.

    `factor`: its kind (`passkey`, `totp`, `recovery`, `sso`), empty without one.
    """

    digest: str  # SHA-256 of the secret in hex
    account_id: str
    created_at: float
    last_used_at: float
    factor_at: float = 0.0
    factor: str = ""
    peer: str = ""
    agent: str = ""

    @property
    def session_id(self) -> str:
        """Names it where the secret must not be."""
        return self.digest[:SESSION_DIGITS]

    @property
    def ends_at(self) -> float:
        """When it ends if it is not used again."""
        return min(self.last_used_at + IDLE, self.created_at + ABSOLUTE)

    def is_over(self, now: float) -> bool:
        """Whether it has ended at `now`; one from the future, after the clock was put back, has ended too."""
        return now >= self.ends_at or self.created_at > now + ABSOLUTE


def wants_touch(last_used_at: float, now: float) -> bool:
    """Whether a use at `now` is stored."""
    return abs(now - last_used_at) >= TOUCH
