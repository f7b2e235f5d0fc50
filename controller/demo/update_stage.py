"""The stage of the update demonstration: stand-in, repository, controller, a simulated fleet and one real agent."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.demo import controller_process
from controller.demo.access import DemoBrokerAccess
from controller.demo.controller_process import DemoBrokerApi
from controller.demo.fleet import SimulatorProcess
from controller.demo.observations import ObservationLog
from controller.demo.options import DemoError, DemoTimings
from controller.demo.processes import ChildProcess
from controller.demo.progress import DemoProgress
from controller.demo.stage import stand_in
from controller.demo.update_operator import DemoRolloutClient
from controller.demo.update_repository import BEFORE, NAME, DemoUpdateRepository

AGENT: Final = "real-agent"
PREFIX: Final = "sim-"
REPORT_SECONDS: Final = 90.0  # for a real machine's first report
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class UpdateDemoOptions:
    """The whole demonstration: how many are simulated, and how fast it goes."""

    devices: int
    seed: int
    fast: bool
    soak: str
    action_time: str


@dataclass(slots=True)
class UpdateDemoEnvironment:
    """Everything that a step may touch or look at."""

    options: UpdateDemoOptions
    folder: Path
    chronicle: ObservationLog
    repository: DemoUpdateRepository
    first: DemoRolloutClient
    second: DemoRolloutClient
    fleet: SimulatorProcess
    device_ids: tuple[str, ...]
    controller: ChildProcess
    restart: Callable[[], Awaitable[tuple[ChildProcess, str]]]

    @property
    def test(self) -> tuple[str, ...]:
        """Devices of the test ring."""
        return self.device_ids[:3]

    @property
    def canaries(self) -> tuple[str, ...]:
        """Simulated devices of the canary ring, which the real agent is in too."""
        return self.device_ids[3:5]

    @property
    def rest(self) -> tuple[str, ...]:
        """Everybody else."""
        return self.device_ids[5:]

    @property
    def everybody(self) -> tuple[str, ...]:
        """All devices, the real one among them."""
        return (*self.device_ids, AGENT)

    @property
    def agent_sets(self) -> Path:
        """Where the real agent keeps what it installs."""
        return self.folder / "agent-state" / "updates" / "sets" / NAME

    async def kill_controller(self) -> int:
        """End the controller with SIGKILL, start it again on what it has kept; the number of the process that died.

        Raises:
            DemoError: it does not come back.
        """
        pid = self.controller.pid
        self.controller.kill()
        await self.controller.ended()
        self.controller, url = await self.restart()
        self.first, self.second = self.first.at(url), self.second.at(url)
        await controller_process.until_ready(self.first, self.controller)
        return pid

    def version_on_disk(self) -> str:
        """What the real agent's link leads to, read there; empty when nothing is installed."""
        try:
            return (self.agent_sets / "current" / "VERSION").read_text().strip()
        except OSError:
            return ""


@contextlib.asynccontextmanager
async def open_update_stage(
    options: UpdateDemoOptions, pace: DemoTimings, folder: Path, program: DemoProgress
) -> AsyncIterator[UpdateDemoEnvironment | None]:
    """Put everything up, each part as a step; `None` when one could not be."""
    chronicle, group_stack = ObservationLog(), contextlib.AsyncExitStack()
    async with group_stack, asyncio.TaskGroup() as group:
        stack = contextlib.AsyncExitStack()
        try:
            stage = None
            async with program.step("broker", "A broker"):
                management, access = await stand_in(stack, [], folder)
                program.say(f"stand-in for EMQX with {len(management.urls)} nodes; TLS with client certificates")
            async with program.step("repository", "A repository of signed updates"):
                repository = DemoUpdateRepository(folder / "updates", folder / "offline-keys")
                await asyncio.to_thread(repository.make)
                program.say("root: 2 of 2 offline keys, targets: 1 offline key; the controller holds neither")
            if not program.is_broken:
                async with program.step("setup", "Controller, fleet and a real agent"):
                    making = _Making(options, pace, folder, chronicle, stack, group, program)
                    stage = await making.everything(management, access, repository)
            yield stage
        finally:
            await stack.aclose()


@dataclass(frozen=True, slots=True)
class _Making:
    options: UpdateDemoOptions
    pace: DemoTimings
    folder: Path
    chronicle: ObservationLog
    stack: contextlib.AsyncExitStack
    group: asyncio.TaskGroup
    program: DemoProgress

    async def everything(
        self, management: DemoBrokerApi, access: DemoBrokerAccess, repository: DemoUpdateRepository
    ) -> UpdateDemoEnvironment:
        """Controller, fleet, agent and operators."""
        home, port = self.folder / "cordon", _free_port()
        home.mkdir()
        certificates = self.folder / "certificates"
        more = (
            f'\n[updates]\nfolder = {json.dumps(str(repository.folder.base))}\nlisten = "127.0.0.1:{port}"\n'
            f"certificate = {json.dumps(str(certificates / 'server.pem'))}\n"
            f'key = {json.dumps(str(certificates / "server.key"))}\nrefresh_every = "1m"\n'
        )
        prepared = await controller_process.prepare(
            home, "cordon-demo", management, access, self.pace, accept_claimed=False, more=more
        )

        async def serve() -> tuple[ChildProcess, str]:
            child, where = await controller_process.serve(prepared.config, self.folder)
            self.stack.push_async_callback(child.stop)
            return child, where

        controller, url = await serve()
        first = DemoRolloutClient(url, prepared.token)
        await controller_process.until_ready(first, controller)
        self.program.say(f"controller serves {url}, and updates at https://127.0.0.1:{port}")
        second = DemoRolloutClient(url, await first.second("second-operator"))
        count = self.options.devices
        width = max(3, len(str(count)))  # as the simulator names them
        ids = tuple(f"{PREFIX}{number:0{width}d}" for number in range(1, count + 1))
        fleet = await self._fleet(access, prepared.public_key, ids)
        await self._agent(access, prepared.public_key, repository, port)
        stage = UpdateDemoEnvironment(
            self.options, self.folder, self.chronicle, repository, first, second, fleet, ids, controller, serve
        )
        await self._until_reported(stage)
        await self._label(stage)
        return stage

    async def _fleet(self, access: DemoBrokerAccess, key: str, ids: tuple[str, ...]) -> SimulatorProcess:
        if access.certificate_for is None:
            raise DemoError("the stand-in lets devices in by certificates only")
        certificates = [access.certificate_for(one)[0] for one in ids]
        arguments = [
            "simulate", "--devices", str(len(ids)), "--prefix", PREFIX, "--servers", ",".join(access.servers),
            "--protocol", "5", "--seed", str(self.options.seed), "--controller-key", key, "--control",
            "--ca", str(access.ca), "--cert-dir", str(certificates[0].parent), "--software", f"{NAME}={BEFORE}",
            "--heartbeat-every", self.pace.heartbeat_every, "--action-time", self.options.action_time,
            "--reconnect-max", self.pace.reconnect_max,
        ]  # fmt: skip
        child = await ChildProcess.start("cordon-agent-simulate", "device_agent.main", arguments, self.folder)
        fleet = SimulatorProcess(child, self.chronicle, ids)
        self.stack.push_async_callback(fleet.stop)
        self._task(fleet.read(), "fleet")
        await fleet.ready()
        self.program.say(f"{len(ids)} simulated devices connected, each with {NAME} {BEFORE}")
        return fleet

    async def _agent(self, access: DemoBrokerAccess, key: str, repository: DemoUpdateRepository, port: int) -> None:
        if access.certificate_for is None:
            raise DemoError("the stand-in lets devices in by certificates only")
        certificate, own_key = access.certificate_for(AGENT)
        root, config = self.folder / "root.json", self.folder / "agent.toml"
        repository.write_root(root)
        config.write_text(
            f"device_id = {json.dumps(AGENT)}\n"
            f"[mqtt]\nservers = {json.dumps(list(access.servers))}\nca = {json.dumps(str(access.ca))}\n"
            f"certificate = {json.dumps(str(certificate))}\nkey = {json.dumps(str(own_key))}\n"
            f'[report]\nheartbeat_every = "1s"\n'
            f'[commands]\ncontroller_keys = {json.dumps([key])}\nallow = ["update.install", "update.rollback"]\n'
            f"[agent]\nstate_dir = {json.dumps(str(self.folder / 'agent-state'))}\n"
            f'[updates]\nurl = "https://127.0.0.1:{port}"\nroot = {json.dumps(str(root))}\n'
        )
        child = await ChildProcess.start(
            "cordon-agent", "device_agent.main", ["run", "--config", str(config)], self.folder
        )
        self._watched(child)
        self._task(_read_on(child), "agent's output")
        self.program.say("a real agent runs, with the first root installed and nothing of the application")

    async def _until_reported(self, stage: UpdateDemoEnvironment) -> None:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                for one in (AGENT, *stage.device_ids):
                    await self._until_known(stage, one)
        except TimeoutError as e:
            raise DemoError(f"not every device had reported within {REPORT_SECONDS:g} s") from e

    async def _until_known(self, stage: UpdateDemoEnvironment, device_id: str) -> None:
        while True:
            with contextlib.suppress(DemoError):
                if (await stage.first.report(device_id)).get("software"):
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def _label(self, stage: UpdateDemoEnvironment) -> None:
        for one in stage.test:
            await stage.first.label(one, "ring:test")
        for one in (*stage.canaries, AGENT):
            await stage.first.label(one, "ring:canary")
        self.program.say(f"rings: {len(stage.test)} test, {len(stage.canaries)} canaries and the real agent, the rest")

    def _watched(self, child: ChildProcess) -> None:
        self.stack.push_async_callback(child.stop)
        self._task(self._watch(child), child.name)

    async def _watch(self, child: ChildProcess) -> None:
        code = await child.ended()
        self.chronicle.broken(f"{child.name} ended with exit code {code}")

    def _task(self, work: "asyncio._CoroutineLike[None]", name: str) -> None:
        task = self.group.create_task(work, name=name)
        self.stack.push_async_callback(_ended, task)


async def _read_on(child: ChildProcess) -> None:
    while await child.line() is not None:
        pass


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
