"""Which nodes run, which address is whose, and which running node cannot be read, as EMQX says."""

import asyncio
from collections.abc import Mapping
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import SingleFlightRead
from controller.adapters.emqx.client.models import ClusterRow
from controller.ports.broker_tables import ClusterReading, UnreadNode
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError

CLUSTER_SECONDS: Final = 1.0  # how long a reading is used again
NO_ADDRESS: Final = "no API address of it is configured"


class ClusterNodes:
    """Reads the cluster through every configured address at once; keeps the last known name of each address."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        self._api = api.prompt().with_priority()
        self._clock = clock
        self._names: dict[str, str] = {}
        self._flight = SingleFlightRead(self._read)
        self._last: tuple[ClusterReading, float] | None = None

    async def read(self, *, fresh: bool = False) -> ClusterReading:
        """The nodes as of a reading of the last `CLUSTER_SECONDS`; with `fresh`, of one that begins now."""
        now = self._clock.monotonic()
        if not fresh and self._last is not None and now - self._last[1] < CLUSTER_SECONDS:
            return self._last[0]
        return await self._flight.get()

    async def _read(self) -> ClusterReading:
        begun = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = {base: group.create_task(self._ask(base)) for base in self._api.addresses}
        reading = self._reading({base: task.result() for base, task in tasks.items()})
        self._last = (reading, begun)
        return reading

    async def _ask(self, base: str) -> ClusterRow | BrokerError:
        try:
            return await self._api.on_node(base).send(requests.read_cluster())
        except BrokerError as e:
            return e

    def _reading(self, answers: Mapping[str, ClusterRow | BrokerError]) -> ClusterReading:
        rows = {base: answer for base, answer in answers.items() if isinstance(answer, ClusterRow)}
        errors = {base: answer for base, answer in answers.items() if isinstance(answer, BrokerError)}
        self._names |= {base: row.self for base, row in rows.items() if row.self}
        # A node whose answer is a refusal can be read, but nobody says which nodes run.
        refused = {base: str(e) for base, e in errors.items() if not e.transient}
        silent = {base: str(e) for base, e in errors.items() if e.transient}
        running = {name for row in rows.values() for name in (*row.nodes, row.self) if name}
        named = {row.self for row in rows.values()}
        unread = [UnreadNode(name, self._reason(name, silent)) for name in sorted(running - named)]
        if refused and not rows:
            unread = [UnreadNode("", f"which nodes run is not known: {next(iter(refused.values()))}")]
        stopped = {
            base: self._names.get(base, "")
            for base in silent
            if rows and (self._names[base] not in running if base in self._names else running <= named)
        }
        return ClusterReading(
            answering=tuple(base for base in answers if base not in silent),
            names=dict(self._names),
            running=tuple(sorted(running)),
            unread=tuple(unread),
            stopped=stopped,
            silent=silent,
        )

    def _reason(self, name: str, silent: Mapping[str, str]) -> str:
        own = [text for base, text in silent.items() if self._names.get(base) == name]
        nameless = [text for base, text in silent.items() if base not in self._names]
        return "; ".join(own or nameless) or NO_ADDRESS
