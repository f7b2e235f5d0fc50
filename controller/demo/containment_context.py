"""The context of the containment steps: the running parts, and ways to wait for what they show."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.demo.api_client import DemoApiClient
from controller.demo.broker import DemoBroker
from controller.demo.observations import ARRIVED, ObservationLog, SimulatorObservation
from controller.demo.options import FAST, NORMAL, DemoError, DemoTimings, ExternalBroker
from controller.demo.runner import DemoRun
from controller.demo.simulator import SimulatorProcess
from controller.domain.audit_kinds import AuditKind

ROLES: Final = 4  # devices with a role; all others stay healthy
_RUN_BYTES: Final = 3
_POLL_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 0.02  # between two telemetry messages while a change is waited for

T = TypeVar("T")
ListedDevice = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of `cordon demo`. `broker`: `None` for the stand-in. `run`: random, part of every name at the broker."""

    devices: int
    seed: int
    fast: bool
    broker: ExternalBroker | None = None
    run: str = field(default_factory=lambda: secrets.token_hex(_RUN_BYTES))

    @property
    def timings(self) -> DemoTimings:
        return FAST if self.fast else NORMAL

    @property
    def prefix(self) -> str:
        """The beginning of every device id."""
        return f"demo-{self.run}-"

    @property
    def device_ids(self) -> tuple[str, ...]:
        """As the simulator names them."""
        return tuple(f"{self.prefix}{number:03d}" for number in range(1, self.devices + 1))

    @property
    def controller_id(self) -> str:
        """The controller's client id."""
        return f"cordon-demo-{self.run}"

    @property
    def subscriber_id(self) -> str:
        """The client id of the telemetry subscriber."""
        return f"subscriber-{self.run}"

    @property
    def forger_id(self) -> str:
        """The client id that publishes a forged command."""
        return f"forger-{self.run}"

    def telemetry_topic(self, device: str) -> str:
        """The topic of a device's telemetry; `+` and `{id}` for all."""
        return f"fleet-{self.run}/{device}/telemetry"


@dataclass(frozen=True, slots=True)
class DemoDeviceRoles:
    """The devices that change."""

    telnet: str
    docker: str
    silent: str
    forged: str

    @classmethod
    def assign(cls, device_ids: tuple[str, ...], seed: int) -> "DemoDeviceRoles":
        """Assigns the roles; the same seed, the same devices."""
        chosen = random.Random(seed).sample(device_ids, ROLES)  # noqa: S311 - nothing secret comes from it
        return cls(*chosen)


@dataclass(frozen=True, slots=True)
class DemoContainmentTiming:
    """`to_contain`: from publishing the violating report to the cut seen at the device, in seconds.

    `to_release`: from publishing the passing report to telemetry at the subscriber.
    """

    device: str
    level: str
    to_contain: float
    to_release: float | None = None


@dataclass(slots=True)
class DemoMetrics:
    """`reports`: accepted full reports. `contained`: by device."""

    reports: int = 0
    contained: dict[str, DemoContainmentTiming] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainmentContext:
    """Everything that a step uses."""

    run: DemoRun
    options: DemoOptions
    roles: DemoDeviceRoles
    broker: DemoBroker
    emqx: EmqxBroker
    api: DemoApiClient
    fleet: SimulatorProcess
    metrics: DemoMetrics

    @property
    def observations(self) -> ObservationLog:
        return self.run.observations

    @property
    def timings(self) -> DemoTimings:
        return self.options.timings

    def say(self, text: str) -> None:
        """Records an observation."""
        self.run.say(text)

    async def until(self, find: Callable[[], T | None], what: str, device: str = "") -> T:
        """Waits for an observation.

        Raises:
            DemoError: there was none in time.
        """
        return await self.observations.until(find, what, self.timings.timeout, device)

    async def observed(self, device: str, kind: str, what: str, *, since: float, **data: Any) -> SimulatorObservation:
        """Waits for an observation of this kind at a device. Raises as `until`."""
        find = self.observations.first
        return await self.until(lambda: find(device, kind, since=since, **data), f"{what} ({device})", device)

    async def answered(self, read: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Polls until `read` returns something.

        Raises:
            DemoError: it did not in time.
        """
        deadline = time.monotonic() + self.timings.timeout
        while (value := await read()) is None:
            if time.monotonic() > deadline:
                raise DemoError(f"not answered within {self.timings.timeout:g} s: {what}")
            await asyncio.sleep(_POLL_SECONDS)
        return value

    async def change(self, device: str, change: Mapping[str, Any]) -> SimulatorObservation:
        """Changes a device; returns the full report of it that the device published."""
        since = time.monotonic()
        await self.fleet.change(device, change)
        return await self.observed(device, "report_sent", "a full report", since=since, report="full")

    @asynccontextmanager
    async def probing(self, device: str, every: float = _PROBE_SECONDS) -> AsyncIterator[None]:
        """Lets the device publish telemetry much more often, so that a change is seen when it happens."""

        async def publish() -> None:
            while True:
                await self.fleet.telemetry(device)
                await asyncio.sleep(every)

        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(publish(), name="probe")
                try:
                    yield
                finally:
                    task.cancel()
        except* DemoError as group_error:
            raise group_error.exceptions[0] from None

    def telemetry_acks(self, device: str, code: int, since: float) -> list[SimulatorObservation]:
        """PUBACKs with this reason code for the device's telemetry."""
        topic = self.options.telemetry_topic(device)
        return list(self.observations.of(device, "puback", since=since, code=code, topic=topic))

    async def telemetry_arrives(self, device: str, since: float) -> SimulatorObservation:
        """Waits for the first telemetry message at the subscriber."""
        async with self.probing(device):
            return await self.observed(device, ARRIVED, "telemetry at the subscriber", since=since)

    async def recorded(self, device: str, kind: AuditKind, **detail: Any) -> None:
        """Waits for an audit entry of this kind."""

        async def find() -> bool | None:
            timeline = (await self.api.device(device))["timeline"]
            return (
                any(
                    line["kind"] == kind and all(line["detail"].get(k) == v for k, v in detail.items())
                    for line in timeline
                )
                or None
            )

        await self.answered(find, f"{kind} in the audit log of {device}")

    async def listed(self, device: str, check: Callable[[ListedDevice], bool], what: str) -> ListedDevice:
        """Waits until the controller lists the device so."""

        async def find() -> ListedDevice | None:
            row = (await self.api.devices(device)).get(device)
            return row if row is not None and check(row) else None

        return await self.answered(find, f"{what} ({device})")

    async def on_every_node(self, check: Callable[[EmqxApi], Awaitable[bool]], what: str) -> int:
        """Waits until the API of every node shows it; returns the number of nodes."""
        api = self.emqx.api

        async def find() -> int | None:
            answers = [await check(api.on_node(url)) for url in api.addresses]
            return len(answers) if all(answers) else None

        return await self.answered(find, what)
