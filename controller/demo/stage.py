"""The stage: broker, controller, fleet and bystander as they really run, put up in order, taken down in any case."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.adapters.emqx.containment.authentication import read_settings
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.system import SystemClock
from controller.demo import controller_process, traces
from controller.demo.access import DemoBrokerAccess, access_by_certificates, access_to
from controller.demo.certificates import DemoCertificateAuthority, write_secret
from controller.demo.controller_process import DemoBrokerApi
from controller.demo.fleet import SimulatorProcess
from controller.demo.mqtt_client import bystander
from controller.demo.observations import ObservationLog
from controller.demo.operator import DemoApiClient
from controller.demo.options import DemoError, DemoOptions, DemoTimings, pace_of
from controller.demo.processes import ChildProcess
from controller.demo.traces import BrokerFootprint
from controller.ports.broker import AuthStrength

START_SECONDS: Final = 30.0
CLEAN_SECONDS: Final = 60.0
NODES: Final = 3  # of the stand-in

DemoProgressCallback = Callable[[str], None]


@dataclass(slots=True)
class DemoEnvironment:
    """Everything a step of the story may touch or look at. `children` are in the order of their start."""

    options: DemoOptions
    pace: DemoTimings
    folder: Path
    chronicle: ObservationLog
    access: DemoBrokerAccess
    management: DemoBrokerApi
    broker: EmqxBroker
    children: list[ChildProcess] = field(default_factory=list)
    _operator: DemoApiClient | None = None
    _fleet: SimulatorProcess | None = None
    _controller: ChildProcess | None = None

    @property
    def controller_id(self) -> str:
        """The client id of the run's controller."""
        return f"cordon-demo-{self.options.run}"

    @property
    def bystander_id(self) -> str:
        """The client id of the second subscriber."""
        return f"bystander-{self.options.run}"

    @property
    def forger_id(self) -> str:
        """The client id of the one who forges."""
        return f"forger-{self.options.run}"

    @property
    def fleet_root(self) -> str:
        """Where the fleet's own messages begin."""
        return f"fleet-{self.options.run}"

    @property
    def fleet_filter(self) -> str:
        """Matches the fleet's own messages."""
        return f"{self.fleet_root}/#"

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Every device of the fleet, as the simulator names them."""
        count = self.options.devices
        return tuple(f"{self.options.prefix}{number:03d}" for number in range(1, count + 1))

    @property
    def operator(self) -> DemoApiClient:
        """Calls to the controller's API."""
        assert self._operator is not None
        return self._operator

    @property
    def fleet(self) -> SimulatorProcess:
        """The simulated devices."""
        assert self._fleet is not None
        return self._fleet

    async def raise_curtain(
        self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup, say: DemoProgressCallback
    ) -> None:
        """Set the broker up, start controller, bystander and fleet; `stack` gets what ends them.

        Raises:
            DemoError: something did not start.
        """
        settings = await EmqxSetup(self.broker.api).state(self.controller_id)
        clients = (self.bystander_id, self.forger_id)
        left = BrokerFootprint(self.controller_id, settings, self.device_ids, clients, self.fleet_filter)
        stack.push_async_callback(self._clean, left, say)
        # First of all the cheapest look at whether anybody gets in with what was given.
        watcher = await stack.enter_async_context(bystander(self.access, self.bystander_id, self.chronicle))
        accept_claimed = await self._has_to_accept_claimed(say)
        home = self.folder / "cordon"
        home.mkdir()
        prepared = await controller_process.prepare(
            home, self.controller_id, self.management, self.access, self.pace, accept_claimed=accept_claimed
        )
        if self.options.broker is not None:
            await traces.open_fleet_topics(self.broker, self.fleet_filter)
        self._controller, url = await controller_process.serve(prepared.config, self.folder)
        self.children.append(self._controller)
        stack.push_async_callback(self._controller.stop)
        self._operator = DemoApiClient(url, prepared.token)
        await controller_process.until_ready(self._operator, self._controller)
        say(f"controller serves {url}")
        code = await watcher.subscribe(f"{self.fleet_root}/+/telemetry")
        if code >= 128:
            raise DemoError(f"the bystander's subscription was refused by the broker: reason {code}")
        await self._start_fleet(stack, group, prepared.public_key)
        for child in self.children:
            stack.push_async_callback(_ended, group.create_task(self._watch(child), name=child.name))
        say(f"{len(self.device_ids)} devices {self.options.prefix}* connected over {', '.join(self.access.servers)}")

    async def _has_to_accept_claimed(self, say: DemoProgressCallback) -> bool:
        """Whether this broker proves nobody's identity: containing then needs a setting that its name warns of."""
        if self.access.own_certificates:
            return False
        settings = await read_settings(self.broker.api)
        if settings.floor is not AuthStrength.CLAIMED:
            return False
        say("this broker asks devices for no proof: the run sets identity.unsafe_accept_claimed = true for itself")
        return True

    async def _start_fleet(self, stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup, key: str) -> None:
        arguments = [
            "simulate", "--devices", str(self.options.devices), "--prefix", self.options.prefix,
            "--servers", ",".join(self.access.servers), "--protocol", "5", "--seed", str(self.options.seed),
            "--controller-key", key, "--control",
            "--heartbeat-every", self.pace.heartbeat_every, "--action-time", self.pace.action_time,
            "--reconnect-max", self.pace.reconnect_max, "--telemetry-every", self.pace.telemetry_every,
            "--telemetry-topic", f"{self.fleet_root}/{{id}}/telemetry",
        ]  # fmt: skip
        arguments += self._fleet_credentials()
        child = await ChildProcess.start("cordon-agent-simulate", "device_agent.main", arguments, self.folder)
        self.children.append(child)
        fleet = SimulatorProcess(child, self.chronicle, self.device_ids)
        stack.push_async_callback(fleet.stop)
        self._fleet = fleet
        reading = group.create_task(fleet.read(), name="fleet")
        stack.push_async_callback(_ended, reading)
        await fleet.ready()

    def _fleet_credentials(self) -> list[str]:
        found: list[str] = []
        if self.access.ca is not None:
            found += ["--ca", str(self.access.ca.absolute())]
        if self.access.certificate_for is not None:
            pairs = [self.access.certificate_for(device_id) for device_id in self.device_ids]
            certificate, key = pairs[0]
            if self.access.own_certificates:
                found += ["--cert-dir", str(certificate.parent)]
            else:
                found += ["--cert", str(certificate.absolute()), "--key", str(key.absolute())]
        if self.access.user is not None:
            password = self.folder / "fleet.password"
            write_secret(password, (self.access.password or "").encode())
            found += ["--username", self.access.user, "--password-file", str(password)]
        return found

    async def _watch(self, child: ChildProcess) -> None:
        code = await child.ended()
        self.chronicle.broken(f"{child.name} ended with exit code {code}")

    async def _clean(self, left: BrokerFootprint, say: DemoProgressCallback) -> None:
        try:
            async with asyncio.timeout(CLEAN_SECONDS):
                remains = await traces.remove(self.broker, left, self.access)
        except TimeoutError as e:
            raise DemoError(f"the broker could not be left as it was found within {CLEAN_SECONDS:g} s") from e
        if remains:
            raise DemoError(f"the broker is not as it was found: {'; '.join(remains)}")
        say("read back at the broker: no ban, rule, session or retained message of this run; settings as before")


async def _ended(reading: asyncio.Task[None]) -> None:
    reading.cancel()
    await asyncio.wait([reading])


@contextlib.asynccontextmanager
async def open_stage(options: DemoOptions, folder: Path, say: DemoProgressCallback) -> AsyncIterator[DemoEnvironment]:
    """A stage with its broker; the rest comes with `raise_curtain`.

    Raises:
        DemoError: the stand-in did not start.
        ControllerError: the broker does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        children: list[ChildProcess] = []
        if options.broker is None:
            management, access = await stand_in(stack, children, folder)
            say(f"stand-in for EMQX with {NODES} nodes at {', '.join(management.urls)}; TLS with client certificates")
        else:
            management = DemoBrokerApi(options.broker.api, options.broker.key, options.broker.secret)
            access = access_to(options.broker)
        broker = await stack.enter_async_context(
            open_emqx(management.urls, management.key, management.secret, clock=SystemClock())
        )
        if options.broker is not None:
            say(await _who_answers(broker))
        yield DemoEnvironment(options, pace_of(options), folder, ObservationLog(), access, management, broker, children)


async def stand_in(
    stack: contextlib.AsyncExitStack, children: list[ChildProcess], folder: Path
) -> tuple[DemoBrokerApi, DemoBrokerAccess]:
    """Start the stand-in; how to manage it and how to get in."""
    certificates = folder / "certificates"
    certificates.mkdir()
    authority = DemoCertificateAuthority(certificates, datetime.now(UTC))
    certificate, key = authority.server()
    arguments = ["--nodes", str(NODES), "--tls-ca", str(authority.ca), "--tls-cert", str(certificate)]
    arguments += ["--tls-key", str(key)]
    child = await ChildProcess.start("cordon-standin", "controller.standin", arguments, folder)
    children.append(child)
    stack.push_async_callback(child.stop)
    told = await child.first_line(START_SECONDS)
    nodes: Sequence[dict[str, str]] = told["nodes"]
    management = DemoBrokerApi(tuple(node["api"] for node in nodes), told["api_key"], told["api_secret"])
    return management, access_by_certificates(authority, tuple(node["tls"] for node in nodes))


async def _who_answers(broker: EmqxBroker) -> str:
    answers = await broker.ping()
    silent = [f"{url}: {text}" for url, is_there, text in answers if not is_there]
    if silent:
        raise DemoError(f"the broker's API does not answer: {'; '.join(silent)}")
    return f"broker: {', '.join(f'{url} ({text})' for url, _, text in answers)}"
