"""The controllers on one store, as each tells the others: whose clients are never contained, whose keys differ."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.ports.clock import Clock
from controller.ports.controllers import ControllerBook, ControllerRecord
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.own_clients import OwnClients

LOOK_EVERY: Final = 1.0  # seconds; a controller that starts is known to the others after this
RENEW_EVERY: Final = 10.0  # seconds
LIVE_FOR: Final = 30.0  # seconds since a controller renewed its record
_FORGOTTEN_AFTER: Final = 30 * 86_400.0  # seconds; until then its client is protected although it does not run


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key that is not the same on every host: fingerprint (empty: none there) by controller."""

    key: str
    fingerprints: Mapping[str, str]

    def __str__(self) -> str:
        held = ", ".join(f"{name} has {print_ or 'none'}" for name, print_ in self.fingerprints.items())
        return f"the key of {self.key} is not the same on every controller: {held}"


class Controllers:
    """This controller among the others; on SQLite (`book` is None) it is the only one."""

    def __init__(
        self,
        book: ControllerBook | None,
        own: ControllerRecord,
        clients: OwnClients,
        policy_files: Callable[[], str],
        clock: Clock,
        log: Log,
    ) -> None:
        """`policy_files`: the version of the policies in this host's files."""
        self._book = book
        self._own = own
        self._clients = clients
        self._policy_files = policy_files
        self._clock = clock
        self._log = log
        self._renewed_at = float("-inf")
        self._records: Sequence[ControllerRecord] = (own,)

    @property
    def name(self) -> str:
        return self._own.name

    @property
    def live(self) -> Sequence[ControllerRecord]:
        """Those that run, as far as the store knows, by name."""
        since = self._clock.now() - LIVE_FOR
        return [one for one in self._records if one.name == self._own.name or one.seen_at > since]

    async def start(self) -> None:
        """Tells the others of this one, and learns of them; before its client connects."""
        await self.look()
        for warning in self.warnings():
            self._log(warning, {"alert": True})

    def warnings(self) -> list[str]:
        """Returns the keys that are not the same on every host, each as a sentence."""
        return [str(one) for one in key_differences(self.live)]

    async def run(self) -> None:
        """Runs until cancelled."""
        if self._book is None:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except StoreError as e:
                self._log("the other controllers are not known now", {"error": str(e)})

    async def look(self) -> None:
        """Renews the own record where that is due, and reads the others'."""
        if self._book is None:
            return
        if self._clock.monotonic() - self._renewed_at >= RENEW_EVERY:
            now = self._clock.now()
            self._own = replace(self._own, seen_at=now, policy_files=self._policy_files())
            await self._book.put(self._own, now - _FORGOTTEN_AFTER)
            self._renewed_at = self._clock.monotonic()
        self._records = await self._book.records()
        self._clients.add(self._records)


def key_differences(records: Sequence[ControllerRecord]) -> list[KeyDifference]:
    """Returns the keys that are not the same on every host."""
    found = []
    for key in sorted({key for one in records for key in one.keys}):
        held = {one.name: one.keys.get(key, "") for one in records}
        if len(set(held.values())) > 1:
            found.append(KeyDifference(key, held))
    return found
