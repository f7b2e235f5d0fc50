"""Reads the broker for an audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controller.domain.broker.inspection import BrokerInspection


@dataclass(frozen=True, slots=True)
class DashboardLogin:
    """A dashboard user of the operator: EMQX lists its API keys only for such a login."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class NodeListeners:
    """The listeners of one node, as EMQX lists them, or `None` with the reason in `trouble`.

    `api`: URL of its API; empty if none is configured. `node` is empty if nobody says whose that API is.
    """

    node: str
    api: str
    rows: Any
    trouble: str = ""


class BrokerInspector(Protocol):
    """Reads everything that broker policies use; the result has a reason for what cannot be read."""

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        """Reads everything: settings, listeners with a TLS handshake each, one attempt of the default login."""
        ...

    async def versions(self) -> Sequence[str]:
        """The versions of the cluster's nodes, each once.

        Raises:
            BrokerError: they cannot be read.
        """
        ...

    async def endpoints(self) -> Sequence[NodeListeners]:
        """Reads the listeners of every node of the cluster through its own API."""
        ...
