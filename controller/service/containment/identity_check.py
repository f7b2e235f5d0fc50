"""The broker's word on who sent what was heard, and what it is worth for messages that may have waited there."""

from typing import Final

from controller.ports.broker import AuthStrength, BrokerControl
from controller.ports.clock import Clock
from controller.ports.messages import Messages

# Seconds after a session was resumed in which what arrives may have waited at the broker: nobody knows since when.
BACKLOG_SECONDS: Final = 10.0
_LONG_AGO: Final = 0.0  # Unix seconds


class IdentityCheck:
    """Asks the broker about the session that spoke."""

    def __init__(self, broker: BrokerControl, messages: Messages, clock: Clock) -> None:
        self._broker = broker
        self._messages = messages
        self._clock = clock

    async def grade(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        """See `BrokerControl.grade`; what may have been sent while nobody listened may be of anybody since.

        Raises:
            BrokerError: the broker could not be asked.
        """
        waited = heard_at is not None and self._may_have_waited(heard_at)
        return await self._broker.auth_strength(client_id, heard_at=_LONG_AGO if waited else heard_at)

    def _may_have_waited(self, heard_at: float) -> bool:
        resumed_at = self._messages.state.resumed_at
        if resumed_at is None:
            return False
        after = heard_at - (self._clock.now() - self._clock.monotonic()) - resumed_at
        return 0 <= after < BACKLOG_SECONDS
