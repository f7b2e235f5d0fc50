"""Changes that other controllers commit, for what the leader waits for: requests, and the devices of open rollouts."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Final

from controller.domain.device import Device
from controller.domain.effects import CommandRecord
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import Store, StoredReport
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import CommitListener, UnitOfWork

POLL: Final = 1.0  # seconds
POLL_FOR_WAITERS: Final = 0.25  # seconds while a request waits
MOST_URGENT: Final = 5000  # devices asked about in every pass
MOST_IN_TURN: Final = 200  # of the others
RECENT_COMMANDS: Final = 20  # of a device; as many may be open

Ids = Callable[[], Collection[str]]


class RemoteChanges:
    """Compares versions of rows; what changed is loaded and given to the listeners as a commit would be.

    A device counts as changed when it is asked about for the first time: it may have changed before.
    """

    def __init__(
        self,
        fleet: FleetState,
        store: Store,
        sources: tuple[Ids, Ids, Ids],
        listeners: Sequence[CommitListener],
        on_pass: Callable[[], None],
        log: Log,
    ) -> None:
        """`sources`: devices that requests wait for, those asked about in every pass, and those whose turn comes.

        `on_pass` is called in every pass: what reads the audit log itself looks for lines of others.
        """
        self._fleet = fleet
        self._store = store
        self._awaited, self._urgent, self._others = sources
        self._listeners = tuple(listeners)
        self._on_pass = on_pass
        self._log = log
        self._versions: dict[str, int] = {}
        self._last = ""  # the device that the last turn ended with

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as e:
                self._log("changes of other controllers are not known now", {"error": str(e)})
            await asyncio.sleep(POLL_FOR_WAITERS if self._awaited() else POLL)

    async def look(self) -> None:
        """One pass.

        Raises:
            StoreError: the store cannot be read; the next pass finds what this one did not.
        """
        self._on_pass()
        ids = list(dict.fromkeys((*self._awaited(), *islice(self._urgent(), MOST_URGENT), *self._in_turn())))
        if not ids:
            self._versions.clear()
            return
        found = await self._store.versions(ids)
        changed = [one for one in ids if one in found and self._versions.get(one) != found[one]]
        told = await self._tell(changed) if changed else ()
        self._versions.update((one, version) for one, version in found.items() if one not in changed or one in told)
        watched = {*self._awaited(), *self._urgent(), *self._others()}
        self._versions = {one: version for one, version in self._versions.items() if one in watched}

    def _in_turn(self) -> list[str]:
        others = sorted(self._others())
        later = [one for one in others if one > self._last] or others
        chosen = later[:MOST_IN_TURN]
        self._last = chosen[-1] if chosen else ""
        return chosen

    async def _tell(self, changed: Sequence[str]) -> Collection[str]:
        """Returns the devices that were told of, or are none; the others changed here while their rows were read."""
        cache = self._fleet.cache
        await self._fleet.load(changed, fresh=True)
        before = {one: cache.peek(one) for one in changed if not cache.is_ahead(one)}
        rollouts = {*self._urgent(), *self._others()}
        read = {one: await self._rows(device) for one, device in before.items() if device and one in rollouts}
        # No await from here on. What was decided here meanwhile is told by its own commit, after which rows from before
        # it must not come.
        batch = UnitOfWork()
        told = [one for one, device in before.items() if cache.peek(one) is device and not cache.is_ahead(one)]
        for device_id in told:
            device = before[device_id]
            if device is None:
                continue
            batch.devices[device_id] = device
            body, commands = read.get(device_id, (None, ()))
            if body is not None:
                batch.reports[device_id] = StoredReport(device, body)
            batch.commands.update((record.command_id, record) for record in commands)
        for listener in self._listeners:
            listener.on_commit(batch)
        return told

    async def _rows(self, device: Device) -> tuple[bytes | None, Sequence[CommandRecord]]:
        """The last report of a device, and its commands as they were committed, oldest first."""
        commands = await self._store.commands(device_id=device.device_id, limit=RECENT_COMMANDS)
        return await self._store.report(device.device_id), commands[::-1]
