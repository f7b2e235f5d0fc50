"""`cordon-agent simulate` as a process that is controlled over its standard input."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.adapters.files import write_file
from controller.demo.broker import DemoBroker
from controller.demo.observations import ObservationLog, SimulatorObservation
from controller.demo.options import DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from controller.demo.runner import DemoRun
from controller.ports.broker import CLOCK_SLACK

READY_SECONDS: Final = 30.0
_SIMULATOR: Final = "*"  # observations about the simulator itself are under this name
_SIMULATOR_KINDS: Final = frozenset({"ready", "done", "error", "status", "stopped"})
_DEVICE_FIELDS: Final = frozenset({"device", "seen", "monotonic", "at"})
_SECRET_MODE: Final = 0o600


class SimulatorProcess:
    """Sends requests to the simulator, and adds its observations to a log."""

    def __init__(self, child: ChildProcess, observations: ObservationLog) -> None:
        self._child = child
        self._observations = observations
        self._requests = 0

    async def read(self) -> None:
        """Records what the simulator writes until it ends."""
        reason = "the simulator has ended"
        try:
            while (line := await self._child.line()) is not None:
                data = {key: value for key, value in line.items() if key not in _DEVICE_FIELDS}
                kind = str(line.get("seen"))
                device = _SIMULATOR if kind in _SIMULATOR_KINDS else str(line.get("device", _SIMULATOR))
                self._observations.add(SimulatorObservation(device, kind, float(line.get("monotonic", 0.0)), data))
        except DemoError as e:
            reason = str(e)
        self._observations.end(reason)

    async def ready(self) -> None:
        """Waits until every device has been connected.

        Raises:
            DemoError: one was not.
        """
        find = self._observations.first
        await self._observations.until(lambda: find(_SIMULATOR, "ready"), "every device connected", READY_SECONDS)
        # A broker with an anonymous listener only vouches for sessions that are older than this.
        await asyncio.sleep(2 * CLOCK_SLACK)

    async def change(self, device: str, change: Mapping[str, Any]) -> None:
        """Changes a device, which reports the change at once."""
        await self._request("change", device, **change)

    async def update_ends(self, device: str, target: str, outcome: str) -> None:
        """Determines the outcome of updates of a device to `target`, NAME/VERSION."""
        await self._request("update", device, target=target, outcome=outcome)

    async def silence(self, device: str) -> None:
        """Lets a device stay connected and publish nothing."""
        await self._request("silence", device)

    async def speak(self, device: str) -> None:
        """Ends a silence."""
        await self._request("speak", device)

    async def rescan(self, device: str) -> None:
        """Lets a device send a full report."""
        await self._request("rescan", device)

    async def telemetry(self, device: str) -> None:
        """Lets a device publish one telemetry message now."""
        await self._child.send({"do": "telemetry", "device": device})

    async def _request(self, action: str, device: str, **parameters: Any) -> None:
        self._requests += 1
        number, find = self._requests, self._observations.first
        await self._child.send({"do": action, "device": device, "id": number, **parameters})

        def answer() -> SimulatorObservation | None:
            return find(_SIMULATOR, "done", id=number) or find(_SIMULATOR, "error", id=number)

        answered = await self._observations.until(answer, f"the simulator taking {action!r}", READY_SECONDS)
        if answered.kind == "error":
            raise DemoError(f"the simulator refused {action!r}: {answered.data.get('reason')}")


async def start_simulator(
    run: DemoRun,
    broker: DemoBroker,
    device_ids: Sequence[str],
    prefix: str,
    timings: DemoTimings,
    *options: str,
) -> SimulatorProcess:
    """Starts the simulator; returns once every device has been connected.

    Raises:
        DemoError: it did not start, or a device was not connected.
    """
    arguments = [
        "simulate", "--devices", str(len(device_ids)), "--prefix", prefix, "--protocol", "5", "--control",
        "--servers", ",".join(map(str, broker.servers)), "--heartbeat-every", timings.heartbeat_every,
        "--reconnect-max", timings.reconnect_max, *_credentials(run, broker, device_ids), *options,
    ]  # fmt: skip
    child = await run.start("cordon-agent-simulate", "device_agent.main", arguments)
    simulator = SimulatorProcess(child, run.observations)
    run.task(simulator.read(), "simulator")
    await simulator.ready()
    run.watch(child)
    return simulator


def _credentials(run: DemoRun, broker: DemoBroker, device_ids: Sequence[str]) -> list[str]:
    arguments: list[str] = []
    if broker.ca is not None:
        arguments += ["--ca", str(broker.ca.absolute())]
    if broker.certificate_for is not None:
        pairs = [broker.certificate_for(device_id) for device_id in device_ids]
        certificate, key = pairs[0]
        if broker.own_certificates:
            arguments += ["--cert-dir", str(certificate.parent)]
        else:
            arguments += ["--cert", str(certificate.absolute()), "--key", str(key.absolute())]
    if broker.user is not None:
        password = run.folder / "fleet.password"
        write_file(password, (broker.password or "").encode(), _SECRET_MODE, replace=False)
        arguments += ["--username", broker.user, "--password-file", str(password)]
    return arguments
