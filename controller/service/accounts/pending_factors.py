"""What sessions were asked for and have not answered yet: challenges of passkeys, TOTP secrets to be confirmed."""

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PENDING_SECONDS: Final = 600.0  # in which an answer has to come
MAX_PENDING: Final = 1024  # of all sessions; the oldest is dropped first


class FactorPurpose(StrEnum):
    """What an answer is for; a session waits for one answer of each."""

    REGISTER_PASSKEY = "register passkey"
    USE_PASSKEY = "use passkey"
    REGISTER_TOTP = "register totp"


@dataclass(frozen=True, slots=True)
class _Pending:
    secret: bytes
    until: float


class PendingFactors:
    """Random bytes by session and purpose, in memory: after a restart people begin again."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[str, FactorPurpose], _Pending] = OrderedDict()

    def put(self, session_id: str, purpose: FactorPurpose, secret: bytes, now: float) -> None:
        """Replaces what the session was asked for before; `now` in seconds, monotonic."""
        self._pending.pop((session_id, purpose), None)
        self._pending[session_id, purpose] = _Pending(secret, now + PENDING_SECONDS)
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    def peek(self, session_id: str, purpose: FactorPurpose, now: float) -> bytes | None:
        """What this session was asked for, if that is not too long ago."""
        found = self._pending.get((session_id, purpose))
        return None if found is None or now >= found.until else found.secret

    def take(self, session_id: str, purpose: FactorPurpose, now: float) -> bytes | None:
        """As `peek`, once."""
        found = self.peek(session_id, purpose, now)
        self._pending.pop((session_id, purpose), None)
        return found
