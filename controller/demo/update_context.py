"""The context of the update steps: the running parts, and ways to follow a rollout at API, devices and disk."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.api.client import segment
from controller.api.rollout_summary import progress_line
from controller.demo.api_client import DemoApiClient
from controller.demo.controller_process import PreparedController, serve
from controller.demo.options import FAST, NORMAL, DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from controller.demo.runner import DemoRun
from controller.demo.simulator import SimulatorProcess
from controller.demo.update_repository import NAME, DemoUpdateRepository
from controller.ports.errors import ControllerError

AGENT: Final = "real-agent"
PREFIX: Final = "sim-"
ROLLOUT_SECONDS: Final = 180.0
REPORT_SECONDS: Final = 60.0  # for the next report of a device
_POLL_SECONDS: Final = 0.3
_ENDED: Final = frozenset({"completed", "stopped", "aborted"})
_TEST: Final = slice(0, 3)  # devices of the test ring
_CANARY: Final = slice(3, 5)  # simulated devices of the canary ring
_STATES: Final = {
    "pending": "waiting",
    "away": "waiting",
    "skipped": "waiting",
    "ordered": "updating",
    "received": "updating",
    "claimed": "updating",
    "confirmed": "updated",
}


@dataclass(frozen=True, slots=True)
class UpdateDemoOptions:
    """Options of `cordon demo-update`; `devices` are simulated."""

    devices: int
    seed: int
    fast: bool

    @property
    def timings(self) -> DemoTimings:
        return FAST if self.fast else NORMAL

    @property
    def device_ids(self) -> tuple[str, ...]:
        """As the simulator names them."""
        width = max(3, len(str(self.devices)))
        return tuple(f"{PREFIX}{number:0{width}d}" for number in range(1, self.devices + 1))

    @property
    def test(self) -> tuple[str, ...]:
        """The test ring."""
        return self.device_ids[_TEST]

    @property
    def canaries(self) -> tuple[str, ...]:
        """The simulated devices of the canary ring, which also has the real agent."""
        return self.device_ids[_CANARY]

    @property
    def others(self) -> tuple[str, ...]:
        """The last ring."""
        return self.device_ids[_CANARY.stop :]


@dataclass(slots=True)
class UpdateStepContext:
    """Everything that a step uses; `rollouts` holds the last state of each rollout by id."""

    run: DemoRun
    options: UpdateDemoOptions
    repository: DemoUpdateRepository
    fleet: SimulatorProcess
    prepared: PreparedController
    controller: ChildProcess
    api: DemoApiClient
    approver_token: str
    rollouts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Records an observation."""
        self.run.say(text)

    async def restart_controller(self) -> int:
        """Kills the controller with SIGKILL and starts it over the same store; returns the process id of the killed."""
        pid = self.controller.pid
        self.controller.kill()
        await self.controller.wait()
        self.controller, self.api = await serve(self.run, self.prepared)
        return pid

    async def start_rollout(self, version: str, **more: Any) -> str:
        """Starts a rollout; returns its id."""
        body: dict[str, Any] = {"target": f"{NAME}/{version}", "soak": self.options.timings.soak, "timeout": "60s"}
        body |= {"min_sample": 3, "error_threshold": 0.05, **more}
        return str((await self.api.call("POST", "/rollouts", body))["rollout_id"])

    async def follow(self, rollout_id: str, state: str) -> dict[str, Any]:
        """Shows every change of a rollout until it is in this state; returns it.

        Raises:
            DemoError: it ended in another state, or took too long.
        """
        deadline, last = time.monotonic() + ROLLOUT_SECONDS, ""
        while True:
            rollout: dict[str, Any] = await self.api.call("GET", f"/rollouts/{rollout_id}")
            self.rollouts[rollout_id] = rollout
            line = progress_line(rollout)
            if line != last:
                self.say(line)
                last = line
            if self.run.view.wants_fleet:
                await self._show_fleet(rollout_id)
            if rollout["state"] == state:
                return rollout
            if rollout["state"] in _ENDED or time.monotonic() > deadline:
                raise DemoError(f"{rollout_id} is {rollout['state']} ({rollout['why']}), not {state}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _show_fleet(self, rollout_id: str) -> None:
        with contextlib.suppress(ControllerError):  # the old picture stays
            page = await self.api.call("GET", f"/rollouts/{rollout_id}/devices?limit=1000")
            self.run.view.fleet({member["device_id"]: member_state(member) for member in page["items"]})

    def order_taken(self, device_id: str, version: str) -> float | None:
        """When a simulated device took the order to install this version, in monotonic seconds."""
        for one in self.run.observations.of(device_id, "command_taken", action="update.install"):
            if one.data["params"]["version"] == version:
                return one.moment
        return None

    async def reported(self, devices: tuple[str, ...], **expected: str) -> dict[str, Any]:
        """Waits until the report of each device shows these values of the application; returns the last entry.

        Raises:
            DemoError: one does not.
        """
        entry: dict[str, Any] = {}
        for device_id in devices:
            deadline = time.monotonic() + REPORT_SECONDS
            while True:
                software = (await self.api.report(device_id)).get("software") or {}
                entry = next((one for one in software.get("entries", ()) if one["name"] == NAME), {})
                if all(entry.get(key) == value for key, value in expected.items()):
                    break
                if time.monotonic() > deadline:
                    raise DemoError(f"the report of {device_id} shows {entry or 'nothing'}, not {expected}")
                await asyncio.sleep(_POLL_SECONDS)
        return entry

    def installed_version(self) -> str:
        """The version that the real agent's link leads to; empty when there is none."""
        sets: Path = self.run.folder / "agent-state" / "updates" / "sets" / NAME
        try:
            return (sets / "current" / "VERSION").read_text().strip()
        except OSError:
            return ""

    async def until_reported(self) -> None:
        """Waits until the first report of every device shows its software.

        Raises:
            DemoError: one does not.
        """
        deadline = time.monotonic() + REPORT_SECONDS + self.options.timings.timeout
        for device_id in (AGENT, *self.options.device_ids):
            while True:
                with contextlib.suppress(ControllerError):  # no report yet
                    if (await self.api.report(device_id)).get("software"):
                        break
                if time.monotonic() > deadline:
                    raise DemoError(f"{device_id} has not reported")
                await asyncio.sleep(_POLL_SECONDS)

    async def label_rings(self) -> None:
        """Tags the devices of the first two rings."""
        options = self.options
        for ring, members in (("test", options.test), ("canary", (*options.canaries, AGENT))):
            for device_id in members:
                await self.api.call("PUT", f"/devices/{segment(device_id)}/labels", {"tags": [f"ring:{ring}"]})
        rings = f"{len(options.test)} test, {len(options.canaries)} canaries and the real agent, the others"
        self.say(f"rings: {rings}")


def member_state(member: Mapping[str, Any]) -> str:
    """The state of a rollout's device as the view shows it."""
    if member["back"] == "reverted":
        return "reverted"
    if member["back"] == "reverting":
        return "updating"
    return _STATES.get(str(member["state"]), "failed")
