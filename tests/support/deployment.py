"""A stand-in, a controller made by `cordon init` and `cordon serve`, and a simulated fleet, all as processes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.system import SystemClock
from controller.demo import controller_process
from controller.demo.access import DemoBrokerAccess
from controller.demo.controller_process import DemoBrokerApi, PreparedController
from controller.demo.fleet import SimulatorProcess
from controller.demo.observations import ObservationLog
from controller.demo.operator import DemoApiClient
from controller.demo.options import FAST, DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from tests.support.certs import Certs
from tests.support.standin import StandInProcess

CONTROLLER_ID: Final = "cordon-controller"
PREFIX: Final = "dev-"
WAIT_SECONDS: Final = 20.0


@dataclass(slots=True)
class House:
    """What runs; `operator` talks to the controller that runs now."""

    folder: Path
    access: DemoBrokerAccess
    broker: EmqxBroker
    prepared: PreparedController
    controller: ChildProcess
    operator: DemoApiClient
    stack: AsyncExitStack
    starts: int = 1

    async def kill_controller(self) -> None:
        """SIGKILL: nothing is finished, nothing is written any more."""
        self.controller.kill()
        await self.controller.stop()

    async def start_controller(self) -> None:
        """A new process over the same store."""
        self.starts += 1
        name = f"cordon-serve-{self.starts}"
        self.controller, url = await controller_process.serve(self.prepared.config, self.folder, name)
        self.stack.push_async_callback(self.controller.stop)
        self.operator = DemoApiClient(url, self.prepared.token)
        await controller_process.until_ready(self.operator, self.controller)

    async def start_fleet(
        self, devices: int, chronicle: ObservationLog, *, pace: DemoTimings = FAST, more: Sequence[str] = ()
    ) -> SimulatorProcess:
        """Simulated devices with certificates of their own, all connected; `more` are options of the simulator."""
        ids = [f"{PREFIX}{number:03d}" for number in range(1, devices + 1)]
        assert self.access.certificate_for is not None
        folder = next(iter({self.access.certificate_for(device)[0].parent for device in ids}))
        arguments = ["simulate", "--devices", str(devices), "--prefix", PREFIX, "--protocol", "5", "--control"]
        arguments += [
            "--servers",
            ",".join(self.access.servers),
            "--ca",
            str(self.access.ca),
            "--cert-dir",
            str(folder),
        ]
        arguments += ["--controller-key", self.prepared.public_key, "--heartbeat-every", pace.heartbeat_every]
        arguments += ["--reconnect-max", pace.reconnect_max, *more]
        child = await ChildProcess.start("simulate", "device_agent.main", arguments, self.folder)
        fleet = SimulatorProcess(child, chronicle, ids)
        reading = asyncio.get_running_loop().create_task(fleet.read())

        async def end() -> None:
            reading.cancel()
            await asyncio.wait([reading])
            await fleet.stop()

        self.stack.push_async_callback(end)
        await fleet.ready()
        for device in ids:
            await seen(chronicle, device, "receipt", verdict="accepted")
        return fleet


@asynccontextmanager
async def open_house(
    folder: Path,
    *,
    pack: str = "demo",
    api: Sequence[str] = (),
    pace: DemoTimings = FAST,
    emqx: StandInProcess,
    certs: Certs,
) -> AsyncIterator[House]:
    """A ready controller over `emqx`; `api` are other addresses by which it reaches the broker's API."""
    home = folder / "cordon"
    home.mkdir()
    access = DemoBrokerAccess(
        servers=tuple(f"mqtts://{host}:{port}" for host, port in emqx.tls),
        ca=certs.ca,
        certificate_for=certs.client,
        own_certificates=True,
    )
    management = DemoBrokerApi(tuple(api or emqx.api_urls), emqx.key, emqx.secret)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock()))
        prepared = await controller_process.prepare(
            home, CONTROLLER_ID, management, access, pace, accept_claimed=False, pack=pack
        )
        controller, url = await controller_process.serve(prepared.config, folder)
        stack.push_async_callback(controller.stop)
        operator = DemoApiClient(url, prepared.token)
        await controller_process.until_ready(operator, controller)
        yield House(folder, access, broker, prepared, controller, operator, stack)


async def seen(chronicle: ObservationLog, device: str, what: str, *, since: float = 0.0, **data: Any) -> float:
    """Wait until a device saw something; its moment."""
    look = chronicle.first
    try:
        found = await chronicle.until(
            lambda: look(device, what, since=since, **data), f"{what} {data} at {device}", WAIT_SECONDS
        )
    except DemoError as e:
        e.add_note(f"seen there: {chronicle.last_words(device, most=30)}")
        raise
    return found.moment
