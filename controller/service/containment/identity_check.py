"""How strongly the broker authenticated a sender, allowing for messages queued while the link was down."""

from typing import Final

from controller.ports.broker import AuthStrength, BrokerControl
from controller.ports.clock import Clock
from controller.ports.messages import Messages

# Seconds after the link resumed its session in which messages may have been queued at the broker, since any time.
BACKLOG_SECONDS: Final = 10.0
_LONG_AGO: Final = 0.0  # Unix seconds


class IdentityCheck:
    """Determines the authentication strength of the session that sent a message."""

    def __init__(self, broker: BrokerControl, messages: Messages, clock: Clock) -> None:
        self._broker = broker
        self._messages = messages
        self._clock = clock

    async def auth_strength(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        """As `BrokerControl.auth_strength`; a message that may have been queued is dated long ago.

        Raises:
            BrokerError: the broker could not be asked.
        """
        is_queued = heard_at is not None and self._may_have_been_queued(heard_at)
        return await self._broker.auth_strength(client_id, heard_at=_LONG_AGO if is_queued else heard_at)

    def _may_have_been_queued(self, heard_at: float) -> bool:
        resumed_at = self._messages.state.resumed_at
        if resumed_at is None:
            return False
        after = heard_at - (self._clock.now() - self._clock.monotonic()) - resumed_at
        return 0 <= after < BACKLOG_SECONDS
