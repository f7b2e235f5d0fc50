"""Who is connected, where several controllers share the fleet's messages: the broker is asked, not the order believed.

A member of a share group gets no retained status, its messages are lost when it is kicked or no member is left, and a
last will may arrive after the status of the connection that followed it.
"""

import asyncio
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import StatusChanged
from controller.ports.broker import BrokerControl
from controller.ports.controllers import PresencePages
from controller.ports.errors import BrokerError, StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

SETTLE: Final = 2.0  # seconds until what was under way when a device went offline has arrived
AT_ONCE: Final = 100  # devices that one question to the broker is about
PAUSE: Final = 0.05  # seconds between two questions
MAX_WAITING: Final = 100_000  # devices; a comparison of the whole fleet finds what is dropped
SWEEP_EVERY: Final = 3600.0  # seconds between two comparisons of the whole fleet


class PresenceCheck:
    """Asks the broker about devices that went offline, and corrects what the messages' order made wrong.

    Follows the commits of its controller. A correction is checked as well, so that one which came too late is undone.
    """

    def __init__(self, fleet: FleetState, broker: BrokerControl, log: Log) -> None:
        self._fleet = fleet
        self._broker = broker
        self._log = log
        self._waiting: dict[str, float] = {}  # monotonic seconds at which each is due, oldest first
        self.corrected = 0

    def on_commit(self, batch: UnitOfWork) -> None:
        """A device that went offline is asked about."""
        for _, entry in batch.audit:
            if entry.kind is AuditKind.DEVICE_OFFLINE:
                self.ask(entry.device_id)

    def ask(self, device_id: str) -> None:
        """Asks about the device soon."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.setdefault(device_id, self._fleet.clock.monotonic() + SETTLE)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            is_busy = await self.run_once()
            await asyncio.sleep(PAUSE if is_busy else SETTLE / 2)

    async def run_once(self) -> bool:
        """Asks about the next devices that are due; whether there were any."""
        now = self._fleet.clock.monotonic()
        due = [device_id for device_id, at in list(self._waiting.items())[:AT_ONCE] if at <= now]
        for device_id in due:
            del self._waiting[device_id]
        try:
            found = await asyncio.gather(*map(self._broker.is_connected, due))
            for device_id, is_online in zip(due, found, strict=True):
                await self._correct(device_id, is_online=is_online)
        except (BrokerError, StoreError) as e:
            self._log("connections not compared with the broker", {"error": str(e)})
            for device_id in due:
                self.ask(device_id)
            return False
        return bool(due)

    async def _correct(self, device_id: str, *, is_online: bool) -> None:
        device = await self._fleet.find(device_id)
        if device is None or device.online is is_online or (device.online is None and not is_online):
            return
        event = StatusChanged(self._fleet.new_id(), is_online, device.boot_id)
        await self._fleet.apply_and_commit(device_id, event)
        self.corrected += 1
        self.ask(device_id)


class PresenceSweep:
    """Compares the whole fleet with the broker, when a controller begins to lead and each `SWEEP_EVERY`."""

    def __init__(self, check: PresenceCheck, broker: BrokerControl, pages: PresencePages, log: Log) -> None:
        self._check = check
        self._broker = broker
        self._pages = pages
        self._log = log

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.sweep()
            except (BrokerError, StoreError) as e:
                self._log("connections not compared with the broker", {"error": str(e)})
                await asyncio.sleep(SETTLE)
                continue
            await asyncio.sleep(SWEEP_EVERY)

    async def sweep(self) -> None:
        """Asks the broker about every device; what differs is checked once more before it is corrected.

        Raises:
            BrokerError, StoreError: what was compared until then is done.
        """
        last = ""
        while page := await self._pages(last, AT_ONCE):
            last = page[-1][0]
            found = await asyncio.gather(*(self._broker.is_connected(device_id) for device_id, _ in page))
            for (device_id, online), is_online in zip(page, found, strict=True):
                if is_online is not bool(online):
                    self._check.ask(device_id)
            await asyncio.sleep(PAUSE)
