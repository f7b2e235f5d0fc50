"""A controller killed at random moments while a fleet reports and operators act; the result is a list of problems."""

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

from controller.domain.containment.cases import FOREVER
from controller.domain.policy.model import ContainmentLevel
from tests.crash import invariants
from tests.crash.invariants import Asked, Held, Kept, Seen
from tests.crash.random_load import RandomLoad
from tests.crash.snapshots import ReportObserver, read_held, read_kept, read_seen
from tests.support.certs import Certs
from tests.support.deployment import Deployment, open_deployment, until_ready
from tests.support.operator import OperatorClient
from tests.support.processes import ModuleProcess
from tests.support.simulated_fleet import SimulatedFleetProcess
from tests.support.standin import StandInProcess

NODES: Final = 3
LOADS: Final = 4  # random loads at the same time
START_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 150.0  # a limit, on a busy machine
LONGEST_LIFE: Final = 1.2  # seconds from being ready to the kill
LONGEST_START: Final = 0.5  # seconds from being started to the kill, where it is killed while it starts
KILLED_AT_START: Final = 0.2  # of all kills
OBSERVER: Final = "observer"
_POLL_SECONDS: Final = 0.1
_MAX_PROBLEMS: Final = 30


@dataclass(slots=True)
class KillReport:
    """The result of a run; without problems all invariants held."""

    kills: int = 0
    at_start: int = 0
    actions: int = 0
    lines: int = 0
    settle_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _State:
    case_id: str
    level: ContainmentLevel

    def is_worse_than(self, other: "_State") -> bool:
        levels = list(ContainmentLevel)
        return self.case_id not in ("", other.case_id) or levels.index(self.level) > levels.index(other.level)


_FREE: Final = _State("", ContainmentLevel.NONE)


class ForkedController:
    """The controller's processes, one after the other over one store, forked by `tests.crash.fork_server`."""

    def __init__(self, forks: ModuleProcess, token: str) -> None:
        self.forks = forks
        self._token = token
        self._pid = 0

    async def start(self) -> None:
        """Starts a process; it may not listen yet."""
        await self.forks.write(b"start")
        self._pid = int((await self._line())["pid"])

    async def listening(self) -> OperatorClient:
        """Waits until the process listens."""
        return OperatorClient((await self._line())["api"], self._token)

    async def kill(self) -> None:
        """Sends SIGKILL, and waits for the end."""
        os.kill(self._pid, signal.SIGKILL)
        await self.forks.write(b"reap")
        while "ended" not in (line := await self._line()):
            pass  # it may have begun to listen just before
        assert line["ended"] == -signal.SIGKILL, f"the controller ended by itself:\n{self.forks.log_tail()}"

    async def _line(self) -> dict[str, Any]:
        return await self.forks.answer(START_SECONDS)


class KillRun:
    """One run. `rand` decides about everything but the order of concurrent processes."""

    def __init__(
        self,
        deployment: Deployment,
        fleet: SimulatedFleetProcess,
        controller: ForkedController,
        observer: ReportObserver,
        rand: random.Random,
    ) -> None:
        self.report = KillReport()
        self.load = RandomLoad(fleet, rand)
        self._deployment = deployment
        self._fleet = fleet
        self._controller = controller
        self._observer = observer
        self._rand = rand
        self._path = next(deployment.config.parent.rglob("*.db"))
        self._accepted: dict[str, _State] = {}  # devices whose last report was accepted
        self._receipted: dict[str, tuple[int, str]] = {}  # the last receipt of each device, as of the previous snapshot

    async def run(self, kills: int) -> KillReport:
        """Kills so often, then waits until everything has settled."""
        async with asyncio.TaskGroup() as group:
            for number in range(LOADS):
                group.create_task(self.load.run(), name=f"load-{number}")
            try:
                for _ in range(kills):
                    await self._run_and_kill()
                    if self.report.problems:
                        break
                await self._controller.start()
                operator = await self._controller.listening()
                self.load.use(operator)
                await until_ready(operator, self._controller.forks)
            finally:
                self.load.stop()
        self.report.actions = self.load.actions
        begun = time.monotonic()
        await self._until_no_problem("contained devices", self._unsettled)
        for name in self._fleet.device_ids:
            await self.load.repair(name)
        await self._until_no_problem("all devices free", self._not_free)
        self.report.settle_seconds = time.monotonic() - begun
        return self.report

    async def _run_and_kill(self) -> None:
        await self._controller.start()
        if self._rand.random() < KILLED_AT_START:
            self.report.at_start += 1
            await asyncio.sleep(self._rand.random() * LONGEST_START)
        else:
            self.load.use(await self._controller.listening())
            await asyncio.sleep(self._rand.random() * LONGEST_LIFE)
        await self._controller.kill()
        self.load.use(None)
        self.report.kills += 1
        # Before the next start: what the devices were sent by the killed process has to be in the store.
        kept, held, seen = await self._snapshot()
        found = invariants.always(kept, held, seen, self._asked())
        self.report.problems += [f"after kill {self.report.kills}: {text}" for text in found]

    async def _until_no_problem(self, what: str, check: Callable[[], Awaitable[list[str]]]) -> None:
        """Waits until there is no problem; those that remain are reported."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self.report.problems and (found := await check()):
            if time.monotonic() > deadline:
                self.report.problems += [f"{what}: {text}" for text in found[:_MAX_PROBLEMS]]
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _unsettled(self) -> list[str]:
        kept, held, seen = await self._snapshot()
        self.report.lines = len(kept.audit)
        return [*invariants.settled(kept, held), *invariants.always(kept, held, seen, self._asked())]

    async def _not_free(self) -> list[str]:
        kept, held, seen = await self._snapshot()
        self.report.lines = len(kept.audit)
        self._check_not_worse(kept, seen)
        await self._release(kept)
        contained = [f"{name} is {device.level}" for name, device in kept.devices.items() if device.case is not None]
        return [
            *contained,
            *invariants.nothing_is_owed(kept, seen),
            *invariants.settled(kept, held),
            *invariants.always(kept, held, seen, self._asked()),
        ]

    def _check_not_worse(self, kept: Kept, seen: Seen) -> None:
        """A report that was under way may contain a device late, but nothing may once its last report was accepted."""
        for name, device in kept.devices.items():
            state = _State(device.case.case_id if device.case else "", device.level)
            if state.is_worse_than(self._accepted.get(name, state)):
                self.report.problems.append(f"{name}: {state} after its last report had been accepted")
            sent = seen.sent.get(name)
            if sent is not None and sent == seen.receipted.get(name):
                # The store was read before the devices: it is sure to have this report only if the receipt is not new.
                if self._receipted.get(name) == sent:
                    self._accepted[name] = state
                self._receipted[name] = sent

    async def _release(self, kept: Kept) -> None:
        """Ends what only operators can end: an isolation steps down, a restriction ends.

        A restriction by policy alone has to end by a report.
        """
        for name, device in kept.devices.items():
            case = device.case
            is_isolated = device.level is ContainmentLevel.ISOLATED
            if case is None or not (is_isolated or case.hold_until == FOREVER):
                continue
            await self.load.request(name, {})
            if name in self._accepted:
                self._accepted[name] = _State(case.case_id, ContainmentLevel.RESTRICTED) if is_isolated else _FREE

    def _asked(self) -> Asked:
        return Asked(frozenset(self.load.attempted), frozenset(self.load.confirmed))

    async def _snapshot(self) -> tuple[Kept, Held, Seen]:
        # In this order: what devices and operators were told is in the file that is read later.
        failing = dict(self._observer.failing)
        seen = read_seen(self._fleet, failing)
        held = await read_held(self._deployment.broker.api)
        return await asyncio.to_thread(read_kept, self._path), held, seen


@contextlib.asynccontextmanager
async def open_kill_run(folder: Path, devices: int, rand: random.Random) -> AsyncIterator[KillRun]:
    """Starts broker, controller, fleet and observer."""
    certs = Certs(folder / "certs")
    with StandInProcess(nodes=NODES, certs=certs) as emqx:
        async with open_deployment(folder, emqx, certs) as deployment:
            with ReportObserver(emqx.tls[0], certs.context(OBSERVER), OBSERVER) as observer:
                fleet = await deployment.start_fleet(devices, ["--receipt-timeout", "1s"])
                forks = await ModuleProcess.start(
                    "fork-server", "tests.crash.fork_server", [str(deployment.config)], folder
                )
                deployment.stack.push_async_callback(forks.stop)
                await deployment.kill_controller()
                yield KillRun(deployment, fleet, ForkedController(forks, deployment.token), observer, rand)
