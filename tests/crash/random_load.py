"""Devices that break rules, are repaired and obey, and operators who contain and release, all at random."""

import asyncio
import json
import random
from typing import Any, Final

from controller.demo.fleet import SimulatorProcess
from controller.demo.operator import DemoApiClient
from controller.demo.options import DemoError
from tests.crash.snapshots import NEW_OPENSSL, OLD_OPENSSL

PAUSE_SECONDS: Final = 0.06  # between two things that happen, at most; each has its own fate
_DEVICE_ACTS: Final[tuple[dict[str, Any], ...]] = (
    {"open_port": 23},  # restricted, and repaired by a command
    {"openssl": OLD_OPENSSL},  # restricted, and repaired by a command
    {"open_port": 23, "process": "busybox"},  # restricted; the command finds nothing to repair
    {"open_port": 2375},  # isolated
    {"close_port": 23},
    {"close_port": 2375},
    {"close_port": 2375},
    {"openssl": NEW_OPENSSL},
)
_OPERATOR_ACTS: Final[tuple[dict[str, Any], ...]] = (
    {"level": "restricted", "for": "2s"},
    {"level": "restricted"},
    {"level": "isolated", "for": "2s"},
    {"level": "isolated"},
    {},  # release
    {},
    {},
    {},
)


class Storm:
    """Goes on whether or not a controller is there to see it."""

    def __init__(self, fleet: SimulatorProcess, rand: random.Random) -> None:
        """Act on the devices of `fleet`; `operator` is set whenever another controller runs."""
        self.operator: DemoApiClient | None = None
        self.attempted: set[str] = set()
        self.confirmed: set[str] = set()
        self.acts = 0
        self._fleet = fleet
        self._rand = rand

    async def rage(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._rand.random() * PAUSE_SECONDS)
            device = self._rand.choice(self._fleet.device_ids)
            self.acts += 1
            kind = self._rand.random()
            if kind < 0.5:
                await self._fleet.change(device, self._rand.choice(_DEVICE_ACTS))
            elif kind < 0.65:
                kernel = f"6.1.0-{self._rand.randrange(1000)}-amd64"
                await self._fleet.change(device, {"sections": {"os": {"kernel": kernel}}})
            elif kind < 0.75:
                await self._fleet.rescan(device)
            else:
                await self.act(device, self._rand.choice(_OPERATOR_ACTS))

    async def act(self, device: str, containment: dict[str, Any]) -> None:
        """One operator's request, with a reason that no other has; an empty containment is a release."""
        if self.operator is None:
            return
        reason = f"asked {len(self.attempted)}"
        self.attempted.add(reason)
        path = f"/api/v1/quarantine/{device}"
        body = {**containment, "reason": reason}
        try:
            if containment:
                status, answer = await self.operator._call("PUT", path, body)
            else:
                status, answer = await self.operator._call("POST", f"{path}/release", body)
        except DemoError:
            return  # killed before it answered: what was asked may or may not have been decided
        assert status in {200, 404}, f"{device}: {status} {json.dumps(answer)}"
        if status == 200:
            self.confirmed.add(reason)

    async def calm(self, device: str) -> None:
        """Have a device break no rule any more."""
        await self._fleet.change(device, {"close_port": 23})
        await self._fleet.change(device, {"close_port": 2375, "openssl": NEW_OPENSSL})
