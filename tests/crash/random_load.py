"""Devices that break rules, are repaired and obey commands, and operators who contain and release, all at random."""

import asyncio
import random
from typing import Any, Final

from controller.api.client import ApiResponseError, ApiUnreachableError
from tests.crash.snapshots import NEW_OPENSSL, OLD_OPENSSL
from tests.support.operator import OperatorClient
from tests.support.simulated_fleet import SimulatedFleetProcess

PAUSE_SECONDS: Final = 0.06  # the longest pause between two actions
_DEVICE_CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"open_port": 23},  # restricted, and repaired by a command
    {"openssl": OLD_OPENSSL},  # restricted, and repaired by a command
    {"open_port": 23, "process": "busybox"},  # restricted; the command finds nothing to repair
    {"open_port": 2375},  # isolated
    {"close_port": 23},
    {"close_port": 2375},
    {"close_port": 2375},
    {"openssl": NEW_OPENSSL},
)
_OPERATOR_REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {"level": "restricted", "for": "2s"},
    {"level": "restricted"},
    {"level": "isolated", "for": "2s"},
    {"level": "isolated"},
    {},  # release
    {},
    {},
    {},
)


class RandomLoad:
    """Runs whether or not a controller does.

    `attempted` and `confirmed`: the reasons of all operator requests, and of those that the controller answered.
    """

    def __init__(self, fleet: SimulatedFleetProcess, rand: random.Random) -> None:
        self.attempted: set[str] = set()
        self.confirmed: set[str] = set()
        self.actions = 0
        self._stopped = False
        self._operator: OperatorClient | None = None
        self._fleet = fleet
        self._rand = rand

    def use(self, operator: OperatorClient | None) -> None:
        """Sends operator requests there from now on; with `None` there is no controller."""
        self._operator = operator

    def stop(self) -> None:
        """Lets every `run` return after its present action."""
        self._stopped = True

    async def run(self) -> None:
        """Acts until stopped."""
        while not self._stopped:
            await asyncio.sleep(self._rand.random() * PAUSE_SECONDS)
            device = self._rand.choice(self._fleet.device_ids)
            self.actions += 1
            kind = self._rand.random()
            if kind < 0.5:
                await self._fleet.change(device, self._rand.choice(_DEVICE_CHANGES))
            elif kind < 0.65:
                kernel = f"6.1.0-{self._rand.randrange(1000)}-amd64"
                await self._fleet.change(device, {"sections": {"os": {"kernel": kernel}}})
            elif kind < 0.75:
                await self._fleet.rescan(device)
            else:
                await self.request(device, self._rand.choice(_OPERATOR_REQUESTS))

    async def request(self, device: str, containment: dict[str, Any]) -> None:
        """Sends one operator request with a unique reason; an empty containment is a release."""
        if self._operator is None:
            return
        reason = f"asked {len(self.attempted)}"
        self.attempted.add(reason)
        path = f"/quarantine/{device}"
        body = {**containment, "reason": reason}
        try:
            if containment:
                await self._operator.call("PUT", path, body)
            else:
                await self._operator.call("POST", f"{path}/release", body)
        except ApiUnreachableError:
            return  # killed before it answered: the decision may or may not be in the store
        except ApiResponseError as e:
            if e.code != "device_unknown":
                raise
            return
        self.confirmed.add(reason)

    async def repair(self, device: str) -> None:
        """Lets a device pass all rules."""
        await self._fleet.change(device, {"close_port": 23})
        await self._fleet.change(device, {"close_port": 2375, "openssl": NEW_OPENSSL})
