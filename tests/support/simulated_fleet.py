"""`cordon-agent simulate` as a process that is controlled over its standard input."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.ports.broker import CLOCK_SLACK
from tests.support.observations import Observation, ObservationLog
from tests.support.processes import ModuleProcess

READY_SECONDS: Final = 60.0
SIMULATOR: Final = "*"
"""Observations about the simulator itself are under this name."""
_DEVICE_FIELDS: Final = frozenset({"device", "seen", "monotonic", "at"})
_SIMULATOR_KINDS: Final = frozenset({"ready", "done", "error", "status", "stopped"})


class SimulatedFleetProcess:
    """Simulated devices and what they observed."""

    def __init__(self, process: ModuleProcess, device_ids: Sequence[str]) -> None:
        self.device_ids = tuple(device_ids)
        self.observations = ObservationLog()
        self._process = process
        self._requests = 0

    async def read(self) -> None:
        """Records what the simulator writes until it ends."""
        while (line := await self._process.line()) is not None:
            data = {key: value for key, value in line.items() if key not in _DEVICE_FIELDS}
            kind = str(line.get("seen"))
            device = SIMULATOR if kind in _SIMULATOR_KINDS else str(line.get("device", SIMULATOR))
            self.observations.add(Observation(device, kind, float(line.get("monotonic", 0.0)), data))
        self.observations.end("the simulator ended")

    async def ready(self) -> None:
        """Waits until every device has been connected."""
        await self.observations.wait_for(SIMULATOR, "ready", seconds=READY_SECONDS)
        # A broker with an anonymous listener only vouches for sessions that are older than this.
        await asyncio.sleep(2 * CLOCK_SLACK)

    async def change(self, device: str, change: Mapping[str, Any]) -> None:
        """Changes a device, or all (`*`); they report the change at once."""
        await self._request({"do": "change", "device": device, **change})

    async def rescan(self, device: str) -> None:
        """Lets a device send a full report."""
        await self._request({"do": "rescan", "device": device})

    async def stop(self) -> None:
        await self._process.stop()

    async def _request(self, request: dict[str, Any]) -> None:
        self._requests += 1
        number = self._requests
        await self._process.send({**request, "id": number})
        find = self.observations.first

        def answer() -> Observation | None:
            return find(SIMULATOR, "done", id=number) or find(SIMULATOR, "error", id=number)

        answered = await self.observations.until(answer, f"an answer to {request}", READY_SECONDS)
        assert answered.kind == "done", f"{request} was refused: {answered.data.get('reason')}"
