"""What the steps of the story share: the cast, and the ways to look at devices, bystander, broker and controller."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from controller.adapters.emqx.client.api import EmqxApi
from controller.demo.observations import ARRIVED, ObservationLog, SimulatorObservation
from controller.demo.options import ROLES, DemoError, DemoTimings
from controller.demo.outcome import DemoMetrics
from controller.demo.stage import DemoEnvironment
from controller.domain.audit_kinds import AuditKind

NOT_AUTHORIZED: Final = 135
BANNED: Final = 138
KICKED: Final = 152
SUCCESS: Final = 0
_POLL_SECONDS: Final = 0.1
_LOOK_QUICKLY: Final = 0.02  # seconds between two messages that probe for a change

T = TypeVar("T")
ListedDevice = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DemoDeviceRoles:
    """The devices that play a part."""

    telnet: str
    docker: str
    silent: str
    forged: str

    @classmethod
    def of(cls, device_ids: tuple[str, ...], seed: int) -> "DemoDeviceRoles":
        """The parts as `seed` gives them out."""
        # Nothing secret comes from it; the same seed gives the same parts.
        chosen = random.Random(seed).sample(device_ids, ROLES)  # noqa: S311 - see above
        return cls(*chosen)


@dataclass(slots=True)
class DemoStepContext:
    """A step's view of the stage; `say` tells what was observed."""

    stage: DemoEnvironment
    cast: DemoDeviceRoles
    figures: DemoMetrics
    say: Callable[[str], None]

    @property
    def chronicle(self) -> ObservationLog:
        """What devices and bystander saw."""
        return self.stage.chronicle

    @property
    def pace(self) -> DemoTimings:
        """How patient to be."""
        return self.stage.pace

    def telemetry_topic(self, device: str) -> str:
        """Where a device publishes the fleet's own messages."""
        return f"{self.stage.fleet_root}/{device}/telemetry"

    async def seen(self, device: str, seen: str, what: str, *, since: float, **data: Any) -> SimulatorObservation:
        """Wait for something at a device.

        Raises:
            DemoError: it was not seen; with the last that was.
        """
        look = self.chronicle.first
        return await self.until(lambda: look(device, seen, since=since, **data), f"{what} ({device})", device)

    async def until(self, look: Callable[[], T | None], what: str, device: str = "") -> T:
        """Wait until the chronicle shows it.

        Raises:
            DemoError: it did not in time.
        """
        try:
            return await self.chronicle.until(look, what, self.pace.patience)
        except DemoError as e:
            instead = f"; last seen there: {self.chronicle.last_words(device)}" if device else ""
            raise DemoError(f"{e}{instead}") from e

    async def answered(self, look: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Ask again and again until the answer is the wanted one.

        Raises:
            DemoError: it was not in time.
        """
        deadline = time.monotonic() + self.pace.patience
        while (found := await look()) is None:
            if time.monotonic() > deadline:
                raise DemoError(f"not answered within {self.pace.patience:g} s: {what}")
            await asyncio.sleep(_POLL_SECONDS)
        return found

    async def change(self, device: str, change: ListedDevice) -> SimulatorObservation:
        """Make a device another one; the full report of it that the device published."""
        since = time.monotonic()
        await self.stage.fleet.change(device, change)
        return await self.seen(device, "report_sent", "a full report", since=since, report="full")

    @asynccontextmanager
    async def probing(self, device: str, every: float = _LOOK_QUICKLY) -> AsyncIterator[None]:
        """Meanwhile the device publishes far more often, so that a change is seen when it happens."""

        async def send() -> None:
            while True:
                await self.stage.fleet.telemetry(device)
                await asyncio.sleep(every)

        task = None
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(send(), name="probe")
                try:
                    yield
                finally:
                    task.cancel()
        except* DemoError as group_error:
            raise group_error.exceptions[0] from None

    def puback(self, device: str, code: int, since: float) -> SimulatorObservation | None:
        """The first answer of the broker to the device's own messages with this code."""
        return self.chronicle.first(device, "puback", since=since, code=code, topic=self.telemetry_topic(device))

    async def flows(self, device: str, since: float) -> SimulatorObservation:
        """Wait until the device's own messages reach the bystander again; the first that did."""
        async with self.probing(device):
            return await self.seen(device, ARRIVED, "telemetry at the bystander", since=since)

    async def recorded(self, device: str, kind: AuditKind, **detail: Any) -> ListedDevice:
        """Wait until the controller's record of the device has a line of this kind."""

        async def look() -> ListedDevice | None:
            for line in reversed((await self.stage.operator.device(device))["timeline"]):
                if line["kind"] == kind and all(line["detail"].get(k) == v for k, v in detail.items()):
                    found: ListedDevice = line
                    return found
            return None

        return await self.answered(look, f"'{kind}' in the controller's record of {device}")

    async def row(self, device: str, is_wanted: Callable[[ListedDevice], bool], what: str) -> ListedDevice:
        """Wait until the controller's listing has the device as wanted."""

        async def look() -> ListedDevice | None:
            found = (await self.stage.operator.devices(device)).get(device)
            return found if found is not None and is_wanted(found) else None

        return await self.answered(look, f"{what} ({device})")

    async def on_every_node(self, look: Callable[[EmqxApi], Awaitable[bool]], what: str) -> int:
        """Wait until every node's API says so; how many nodes there are."""
        api = self.stage.broker.api

        async def everywhere() -> int | None:
            answers = [await look(api.on_node(url)) for url in api.addresses]
            return len(answers) if all(answers) else None

        return await self.answered(everywhere, what)

    def accepted(self) -> int:
        """Full reports whose receipt reached their device."""
        count = 0
        for device in self.stage.device_ids:
            count += sum(1 for _ in self.chronicle.of(device, "receipt", verdict="accepted"))
        return count
