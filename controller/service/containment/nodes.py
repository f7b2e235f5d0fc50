"""Watches the nodes of the broker: which run, and which of them cannot be read."""

import asyncio
from typing import Final

from controller.ports.broker_tables import BrokerTables, ClusterReading, UnreadNode

WATCH_SECONDS: Final = 1.0  # between two looks


class NodeWatch:
    """Asks every node every second, so that no call that protects goes first to one that hangs."""

    def __init__(self, tables: BrokerTables) -> None:
        self._tables = tables
        self._reading: ClusterReading | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_SECONDS)

    async def look(self) -> None:
        """Asks the cluster which nodes run, and each address whether it answers."""
        self._reading = await self._tables.cluster()

    @property
    def unread(self) -> tuple[UnreadNode, ...]:
        """The running nodes that could not be read: a proof lacks them."""
        return () if self._reading is None else self._reading.unread

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the running nodes, as the cluster says."""
        return () if self._reading is None else self._reading.running

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that answered; every address while none did, or before the first look."""
        return self._tables.addresses if self._reading is None else self._reading.answering or self._tables.addresses
