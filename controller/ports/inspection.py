"""How a broker is looked at to be judged."""

from dataclasses import dataclass
from typing import Protocol

from controller.domain.broker.inspection import BrokerInspection


@dataclass(frozen=True, slots=True)
class DashboardLogin:
    """A dashboard user of the operator's: only such a login may read who has API keys."""

    username: str
    password: str


class BrokerInspector(Protocol):
    """Reads everything that broker policies speak of; what cannot be read is told with its reason, never raised."""

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        """Look at everything now: settings, listeners with a TLS handshake each, one try of the default login."""
        ...

    async def endpoints(self) -> BrokerInspection:
        """Look at nodes and listeners only."""
        ...
