"""The simulated fleet as a process of its own, with its line protocol."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.demo.observations import ObservationLog, SimulatorObservation
from controller.demo.options import DemoError
from controller.demo.processes import ChildProcess
from controller.ports.broker import CLOCK_SLACK

READY_SECONDS: Final = 30.0
NOTES: Final = "*"
"""What the fleet says of itself is kept under this name."""
_DEVICE_LINES: Final = frozenset({"device", "seen", "monotonic", "at"})
_NOTES_LINES: Final = frozenset({"ready", "done", "error", "status", "stopped"})


class SimulatorProcess:
    """Orders in, observations into the chronicle."""

    def __init__(self, child: ChildProcess, chronicle: ObservationLog, device_ids: Sequence[str]) -> None:
        self.device_ids = tuple(device_ids)
        self._child = child
        self._chronicle = chronicle
        self._is_leaving = False
        self._orders = 0

    async def read(self) -> None:
        """Write down what it says until it ends; then whoever still waits learns that nothing more comes."""
        why = "the simulated fleet has ended"
        try:
            while (line := await self._child.line()) is not None:
                self._write_down(line)
        except DemoError as e:
            why = str(e)
        if not self._is_leaving:
            self._chronicle.broken(why)

    def _write_down(self, line: Mapping[str, Any]) -> None:
        data = {key: value for key, value in line.items() if key not in _DEVICE_LINES}
        seen = str(line.get("seen"))
        device = NOTES if seen in _NOTES_LINES else str(line.get("device", NOTES))
        self._chronicle.add(SimulatorObservation(device, seen, float(line.get("monotonic", 0.0)), data))

    async def ready(self) -> None:
        """Wait until every device has been connected.

        Raises:
            DemoError: not all came.
        """
        look = self._chronicle.first
        await self._chronicle.until(lambda: look(NOTES, "ready"), "every device connected", READY_SECONDS)
        # Where somebody could come in without proof, a session is vouched for once it is older than this.
        await asyncio.sleep(2 * CLOCK_SLACK)

    async def change(self, device: str, change: Mapping[str, Any]) -> None:
        """Make a device another one; it reports that at once."""
        await self._order({"do": "change", "device": device, **change})

    async def update_ends(self, device: str, target: str, outcome: str) -> None:
        """Have updates to `target`, NAME/VERSION, end so on a device."""
        await self._order({"do": "update", "device": device, "target": target, "outcome": outcome})

    async def silence(self, device: str) -> None:
        """Have a device say nothing more, though connected."""
        await self._order({"do": "silence", "device": device})

    async def speak(self, device: str) -> None:
        """End a silence."""
        await self._order({"do": "speak", "device": device})

    async def rescan(self, device: str) -> None:
        """Have a device report in full."""
        await self._order({"do": "rescan", "device": device})

    async def telemetry(self, device: str) -> None:
        """Have a device publish one message of the fleet's own work now."""
        await self._child.tell({"do": "telemetry", "device": device})

    async def stop(self) -> None:
        """Have it say goodbye and end."""
        self._is_leaving = True
        await self._child.stop()

    async def _order(self, order: dict[str, Any]) -> None:
        self._orders += 1
        number = self._orders
        await self._child.tell({**order, "id": number})
        look = self._chronicle.first

        def answer() -> SimulatorObservation | None:
            return look(NOTES, "done", id=number) or look(NOTES, "error", id=number)

        taken = await self._chronicle.until(answer, f"the fleet taking the order {order['do']!r}", READY_SECONDS)
        if taken.seen == "error":
            raise DemoError(f"the fleet refused the order {order['do']!r}: {taken.data.get('reason')}")
