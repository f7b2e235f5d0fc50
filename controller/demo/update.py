"""`cordon demo-update`: a good update through three rings, and a bad one that stops itself and is rolled back."""

import asyncio
import json
import socket
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from controller.api.client import ApiResponseError
from controller.app.persons import add_person
from controller.demo.api_client import DemoApiClient
from controller.demo.broker import NODES, DemoBroker, start_stand_in
from controller.demo.controller_process import prepare, serve
from controller.demo.options import DemoError
from controller.demo.results import DemoResult
from controller.demo.runner import DemoRun
from controller.demo.simulator import start_simulator
from controller.demo.update_context import AGENT, PREFIX, UpdateDemoOptions, UpdateStepContext
from controller.demo.update_repository import BAD, GOOD, INSTALLED, NAME, DemoUpdateRepository
from controller.domain.scopes import Scope

_APPROVER: Final = "second-operator"
_CONFLICT: Final = 409


class UpdateDemo:
    """One run with these options."""

    steps = frozenset({"broker", "repository", "setup", "good", "good_seen", "bad", "bad_seen"})

    def __init__(self, options: UpdateDemoOptions) -> None:
        self._options = options
        self._rollouts: dict[str, dict[str, Any]] = {}

    async def run(self, run: DemoRun) -> None:
        async with run.step("broker", "A broker"):
            broker = await start_stand_in(run)
            run.say(f"stand-in for EMQX with {NODES} nodes; TLS with client certificates")
        async with run.step("repository", "A repository of signed updates"):
            folder = run.folder
            repository = await asyncio.to_thread(DemoUpdateRepository, folder / "updates", folder / "offline-keys")
            run.say("root: 2 of 2 offline keys, targets: 1 offline key; the controller holds neither")
        async with run.step("setup", "Controller, fleet and a real agent"):
            context = await self._start(run, broker, repository)
        async with run.step("good", f"{NAME} {GOOD} through three rings (the fleet has {INSTALLED})"):
            await good(context)
        async with run.step("good_seen", "Observed at the devices, on the disk, in their reports"):
            await good_seen(context)
        async with run.step("bad", f"{NAME} {BAD} stops itself in the canary ring and is rolled back"):
            await bad(context)
        async with run.step("bad_seen", "Observed again at the devices, on the disk, in their reports"):
            await bad_seen(context)

    async def _start(self, run: DemoRun, broker: DemoBroker, repository: DemoUpdateRepository) -> UpdateStepContext:
        timings, port = self._options.timings, _free_port()
        certificates = run.folder / "certificates"
        updates = (
            f'[updates]\nfolder = {json.dumps(str(repository.folder.base))}\nlisten = "127.0.0.1:{port}"\n'
            f"certificate = {json.dumps(str(certificates / 'server.pem'))}\n"
            f'key = {json.dumps(str(certificates / "server.key"))}\nrefresh_every = "1m"'
        )
        prepared = await prepare(run, broker, "cordon-demo", timings, updates)
        approver = await add_person(prepared.config.parent / "cordon.db", _APPROVER, (Scope.READ, Scope.ROLLOUT))
        controller, api = await serve(run, prepared)
        run.say(f"controller serves {api.url}, and updates at https://127.0.0.1:{port}")
        fleet = await start_simulator(
            run, broker, self._options.device_ids, PREFIX, timings,
            "--seed", str(self._options.seed), "--controller-key", prepared.public_key,
            "--action-time", timings.update_time, "--software", f"{NAME}={INSTALLED}",
        )  # fmt: skip
        run.say(f"{self._options.devices} simulated devices connected, each with {NAME} {INSTALLED}")
        await _start_agent(run, broker, repository, prepared.public_key, port)
        context = UpdateStepContext(
            run, self._options, repository, fleet, prepared, controller, api, approver, self._rollouts
        )
        await context.until_reported()
        await context.label_rings()
        return context

    def figures(self) -> dict[str, Any]:
        return {
            "devices": self._options.devices + 1,
            "simulated": self._options.devices,
            "real_agents": 1,
            "rollouts": list(self._rollouts.values()),
        }

    def summary(self, result: DemoResult) -> RenderableType:
        """Each rollout with its rings, and the verdict."""
        lines = [Text()]
        for rollout in self._rollouts.values():
            rings = ", ".join(map(_ring, rollout["rings"]))
            name = f"{rollout['name']} {rollout['version']}"
            lines.append(Text(f"{rollout['rollout_id']}  {name}  {rollout['state']}: {rings}"))
        devices = self._options.devices + 1
        return Group(*lines, Text(), result.verdict(f"Both as expected, {devices} devices, {result.seconds:.1f} s."))


def _ring(ring: dict[str, Any]) -> str:
    text = f"{ring['name']} {ring['confirmed']} of {ring['devices']}"
    for key, what in (("errors", "failed"), ("reverted", "rolled back")):
        if ring[key]:
            text += f" ({ring[key]} {what})"
    return text


async def _start_agent(
    run: DemoRun, broker: DemoBroker, repository: DemoUpdateRepository, public_key: str, port: int
) -> None:
    assert broker.certificate_for is not None
    certificate, key = broker.certificate_for(AGENT)
    root, config = run.folder / "root.json", run.folder / "agent.toml"
    root.write_bytes(repository.folder.read_root(1))
    config.write_text(
        f"device_id = {json.dumps(AGENT)}\n"
        f"[mqtt]\nservers = {json.dumps(list(map(str, broker.servers)))}\nca = {json.dumps(str(broker.ca))}\n"
        f"certificate = {json.dumps(str(certificate))}\nkey = {json.dumps(str(key))}\n"
        f'[report]\nheartbeat_every = "1s"\n'
        f'[commands]\ncontroller_keys = {json.dumps([public_key])}\nallow = ["update.install", "update.rollback"]\n'
        f"[agent]\nstate_dir = {json.dumps(str(run.folder / 'agent-state'))}\n"
        f'[updates]\nurl = "https://127.0.0.1:{port}"\nroot = {json.dumps(str(root))}\n'
    )
    agent = await run.start("cordon-agent", "device_agent.main", ["run", "--config", str(config)])

    async def read() -> None:
        while await agent.line() is not None:
            pass

    run.task(read(), "agent's output")
    run.watch(agent)
    run.say("a real agent runs, with the first root installed and nothing of the application")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def good(context: UpdateStepContext) -> None:
    """A version that works: test ring, a killed controller, canaries, a second operator, all others."""
    if context.installed_version():
        raise DemoError(f"the real agent has {context.installed_version()} installed already")
    rollout = await context.start_rollout(GOOD)
    before = await context.follow(rollout, "soaking")
    pid = await context.restart_controller()
    after = await context.api.call("GET", f"/rollouts/{rollout}")
    if after["rings"][0]["confirmed"] != before["rings"][0]["confirmed"]:
        raise DemoError(f"the restarted controller does not continue the rollout: {after}")
    context.say(f"the controller (process {pid}) is killed with SIGKILL during the rollout, restarts and continues it")
    await context.follow(rollout, "awaiting_approval")
    early = [one for one in context.options.others if context.order_taken(one, GOOD) is not None]
    if early:
        raise DemoError(f"{early[0]} of the last ring was ordered before the approval")
    context.say(f"its starter cannot approve: {await _approval_refused(context, rollout)}")
    await DemoApiClient(context.api.url, context.approver_token).call("POST", f"/rollouts/{rollout}/approve", {})
    context.say("a second operator, with another token, approves")
    await context.follow(rollout, "completed")


async def _approval_refused(context: UpdateStepContext, rollout: str) -> str:
    """The reason why the approval of the rollout's starter is refused."""
    try:
        await context.api.call("POST", f"/rollouts/{rollout}/approve", {})
    except ApiResponseError as e:
        if e.status == _CONFLICT:
            return str(e)
        raise
    raise DemoError("the operator who started a rollout could approve it")


async def good_seen(context: UpdateStepContext) -> None:
    """Every device has the good version, by its report, and the rings were kept, by when devices took the order."""
    options = context.options
    await context.reported((*options.device_ids, AGENT), version=GOOD, health="ok")
    context.say(f"reports of all {options.devices + 1} devices show {NAME} {GOOD}, healthy")
    _check_disk(context)
    context.say(f"the real agent verified, unpacked and switched to it: {NAME}/current is {GOOD}")
    rings = [_moments(context, devices) for devices in (options.test, options.canaries, options.others)]
    for number in (0, 1):
        if max(rings[number]) >= min(rings[number + 1]):
            raise DemoError(f"a device of ring {number + 2} was ordered before ring {number + 1} had finished")
    gap = min(rings[1]) - max(rings[0])
    context.say(f"no device was ordered before its ring: the first canary {gap:.1f} s after the last test device")


def _moments(context: UpdateStepContext, devices: tuple[str, ...]) -> list[float]:
    moments = {device: context.order_taken(device, GOOD) for device in devices}
    missing = [device for device, moment in moments.items() if moment is None]
    if missing:
        raise DemoError(f"{missing[0]} was not observed to take the order")
    return [moment for moment in moments.values() if moment is not None]


def _check_disk(context: UpdateStepContext) -> None:
    installed = context.installed_version()
    if installed != GOOD:
        raise DemoError(f"the real agent's disk has {installed or 'nothing'}, not {GOOD}")


async def bad(context: UpdateStepContext) -> None:
    """A version that is signed and does not work: healthy in the test ring, unhealthy on the canaries."""
    await asyncio.to_thread(context.repository.publish_bad)
    context.say(f"{NAME} {BAD} is published with all signatures; its health check fails on the real agent")
    for device in context.options.canaries:
        await context.fleet.update_ends(device, f"{NAME}/{BAD}", "unhealthy")
    rollout = await context.follow(await context.start_rollout(BAD, rollback_on_error=True), "stopped")
    if rollout["ring"] != "canary":
        raise DemoError(f"it stopped in ring {rollout['ring']}, not in the canary ring")
    context.say(f"it stopped itself: {rollout['why']}")


async def bad_seen(context: UpdateStepContext) -> None:
    """No device beyond the canaries was ordered the bad version, and all have the good one again."""
    options = context.options
    ordered = [one for one in options.others if context.order_taken(one, BAD) is not None]
    if ordered:
        raise DemoError(f"{ordered[0]} of the last ring was ordered the bad version")
    context.say(f"none of the {len(options.others)} devices of the last ring was ordered {BAD}")
    for one in options.test:
        if context.run.observations.first(one, "command_taken", action="update.rollback") is None:
            raise DemoError(f"{one} was not observed to take the order to roll back")
    await context.reported((*options.test, *options.canaries), version=GOOD, health="ok")
    context.say(f"the test devices were ordered back, the canaries rolled back: all report {GOOD}")
    _check_disk(context)
    entry = await context.reported((AGENT,), version=GOOD, health="ok", attempted=BAD, outcome="rolled_back")
    context.say(f"the real agent tried {BAD}, found it unhealthy and restored {GOOD}: {entry.get('reason')}")
