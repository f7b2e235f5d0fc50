"""Reads the broker for an audit."""

from dataclasses import dataclass
from typing import Protocol

from controller.domain.broker.inspection import BrokerInspection


@dataclass(frozen=True, slots=True)
class DashboardLogin:
    """A dashboard user of the operator: EMQX lists its API keys only for such a login."""

    username: str
    password: str


class BrokerInspector(Protocol):
    """Reads everything that broker policies use; the result has a reason for what cannot be read, nothing is raised."""

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        """Reads everything: settings, listeners with a TLS handshake each, one attempt of the default login."""
        ...

    async def endpoints(self) -> BrokerInspection:
        """Reads nodes and listeners only."""
        ...
