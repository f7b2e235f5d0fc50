"""A controller killed at random moments while a fleet reports and operators act; what was found, in words."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.demo import controller_process
from controller.demo.fleet import SimulatorProcess
from controller.demo.observations import ObservationLog
from controller.demo.operator import DemoApiClient
from controller.demo.options import DemoError
from controller.demo.processes import ChildProcess, tail_of
from controller.domain.containment.cases import FOREVER
from controller.domain.policy.model import ContainmentLevel
from tests.crash import invariants
from tests.crash.invariants import Asked, Held, Kept, Seen
from tests.crash.random_load import Storm
from tests.crash.snapshots import Bystander, read_held, read_kept, read_seen
from tests.support.certs import Certs
from tests.support.deployment import House, open_house
from tests.support.standin import StandInProcess

NODES: Final = 3
STORMS: Final = 4  # of devices and operators at once
START_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 40.0
LONGEST_LIFE: Final = 1.2  # seconds from being ready to the kill
LONGEST_START: Final = 0.5  # seconds from being started to the kill, where it is killed while it starts
KILLED_AT_START: Final = 0.2  # of all kills
BYSTANDER: Final = "bystander"
_POLL_SECONDS: Final = 0.1
_MOST_COMPLAINTS: Final = 30


@dataclass(slots=True)
class Report:
    """What a siege came to; `complaints` is empty if all is well."""

    kills: int = 0
    at_start: int = 0
    acts: int = 0
    lines: int = 0
    settle_seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)


class Served:
    """The controller's processes, one after the other, over one store."""

    def __init__(self, forge: ChildProcess, house: House) -> None:
        """Use `forge` for all processes but the house's own first."""
        self._forge = forge
        self._house = house
        self._pid = 0

    async def start(self) -> None:
        """A new process; it may not listen yet."""
        assert self._forge._process.stdin is not None
        self._forge._process.stdin.write(b"start\n")
        self._pid = int((await self._line())["pid"])

    async def listening(self) -> DemoApiClient:
        """Calls to the new process, once it listens."""
        line = await self._line()
        return DemoApiClient(line["api"], self._house.prepared.token)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(self._pid, signal.SIGKILL)
        assert self._forge._process.stdin is not None
        self._forge._process.stdin.write(b"reap\n")
        while "ended" not in (line := await self._line()):
            pass  # it may have begun to listen in its last moment
        assert line["ended"] == -signal.SIGKILL, f"the controller ended by itself:\n{tail_of(self._forge.log)}"

    async def _line(self) -> dict[str, Any]:
        try:
            return await self._forge.first_line(START_SECONDS)
        except DemoError as e:
            e.add_note(tail_of(self._forge.log))
            raise


class Siege:
    """One run. `rand` decides what happens and when; which process gets there first stays open."""

    def __init__(
        self, house: House, fleet: SimulatorProcess, served: Served, bystander: Bystander, rand: random.Random
    ) -> None:
        """Everything is running but the processes of `served`."""
        self.report = Report()
        self.storm = Storm(fleet, rand)
        self._house = house
        self._fleet = fleet
        self._served = served
        self._bystander = bystander
        self._rand = rand

    async def hold(self, kills: int) -> Report:
        """Kill `kills` times, then let everything come to rest; what was found is in the report."""
        async with asyncio.TaskGroup() as group:
            raging = [group.create_task(self.storm.rage(), name=f"storm-{number}") for number in range(STORMS)]
            try:
                for _ in range(kills):
                    await self._one_life()
                    if self.report.complaints:
                        return self.report
                await self._served.start()
                self.storm.operator = await self._served.listening()
                await controller_process.until_ready(self.storm.operator, self._served._forge)
            finally:
                for task in raging:
                    task.cancel()
                self.report.acts = self.storm.acts
        begun = time.monotonic()
        await self._rest("contained devices", self._all_done)
        await self._let_all_out()
        await self._rest("everybody free", self._all_free)
        self.report.settle_seconds = time.monotonic() - begun
        return self.report

    async def _one_life(self) -> None:
        await self._served.start()
        if self._rand.random() < KILLED_AT_START:
            self.report.at_start += 1
            await asyncio.sleep(self._rand.random() * LONGEST_START)
        else:
            self.storm.operator = await self._served.listening()
            await asyncio.sleep(self._rand.random() * LONGEST_LIFE)
        await self._served.kill()
        self.storm.operator = None
        self.report.kills += 1
        # Before the next one starts: what the devices were told by the dead one has to be in its file.
        kept, held, seen = await self._look()
        found = invariants.always(kept, held, seen, self._asked())
        self.report.complaints += [f"after kill {self.report.kills}: {text}" for text in found]

    async def _rest(self, what: str, look: Callable[[], Awaitable[list[str]]]) -> None:
        """Wait until nothing is wrong; what still is at the end becomes the report's complaints."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while found := await look():
            if time.monotonic() > deadline:
                self.report.complaints += [f"{what}: {text}" for text in found[:_MOST_COMPLAINTS]]
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _all_done(self) -> list[str]:
        kept, held, seen = await self._look()
        self.report.lines = len(kept.audit)
        return [*invariants.settled(kept, held), *invariants.always(kept, held, seen, self._asked())]

    async def _all_free(self) -> list[str]:
        # Again and again: a report that was under way may have contained a device just now.
        await self._release_held()
        kept, held, seen = await self._look()
        self.report.lines = len(kept.audit)
        contained = [f"{name} is {device.level}" for name, device in kept.devices.items() if device.case is not None]
        return [
            *contained,
            *invariants.nothing_is_owed(kept, seen),
            *invariants.settled(kept, held),
            *invariants.always(kept, held, seen, self._asked()),
        ]

    async def _let_all_out(self) -> None:
        """Nobody breaks a rule any more, and operators end what only they may end."""
        for name in self._fleet.device_ids:
            await self.storm.calm(name)
        await self._release_held()

    async def _release_held(self) -> None:
        """End what only operators may end. A restriction by policy alone has to end by a report."""
        for name, device in read_kept(self._path).devices.items():
            if device.case is not None and (
                device.level is ContainmentLevel.ISOLATED or device.case.hold_until == FOREVER
            ):
                await self.storm.act(name, {})  # an isolation steps down, a restriction ends

    @property
    def _path(self) -> Path:
        return next(self._house.prepared.config.parent.rglob("*.db"))

    def _asked(self) -> Asked:
        return Asked(frozenset(self.storm.attempted), frozenset(self.storm.confirmed))

    async def _look(self) -> tuple[Kept, Held, Seen]:
        # In this order: nothing may be seen or confirmed that is not in a file read later.
        failing = dict(self._bystander.failing)
        seen = read_seen(self._fleet._chronicle, self._fleet.device_ids, failing)
        held = await read_held(self._house.broker.api)
        return await asyncio.to_thread(read_kept, self._path), held, seen


@contextlib.asynccontextmanager
async def open_siege(folder: Path, devices: int, rand: random.Random) -> AsyncIterator[Siege]:
    """Stand-in, controller, fleet and bystander, ready for the first kill."""
    certs = Certs(folder / "certs")
    with StandInProcess(nodes=NODES, certs=certs) as emqx:
        chronicle = ObservationLog()
        async with open_house(folder, emqx=emqx, certs=certs) as house:
            tls = house.access.tls(BYSTANDER)
            assert tls is not None
            with Bystander(house.access.address(0), tls, BYSTANDER) as bystander:
                fleet = await house.start_fleet(devices, chronicle, more=["--receipt-timeout", "1s"])
                forge = await ChildProcess.start(
                    "forge", "tests.crash.fork_server", [str(house.prepared.config)], folder
                )
                house.stack.push_async_callback(forge.stop)
                await house.kill_controller()
                yield Siege(house, fleet, Served(forge, house), bystander, rand)
