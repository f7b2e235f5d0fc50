"""Keeps the signed metadata of updates valid: signs the online roles before they end, and tells when it cannot."""

import asyncio
from collections.abc import Callable, Mapping

from controller.ports.clock import Clock
from controller.ports.updates import UpdateRepository, UpdatesError

Log = Callable[[str, Mapping[str, object]], None]


class UpdateRefresher:
    """`trouble`: why the last look failed, empty when it did not; `warnings`: what offline keys have to do soon."""

    def __init__(self, repository: UpdateRepository, clock: Clock, every: float, log: Log) -> None:
        self._repository = repository
        self._clock = clock
        self._every = every
        self._log = log
        self.trouble = ""
        self.warnings: tuple[str, ...] = ()
        self.last_look: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self._every)

    async def round(self) -> None:
        """One look; what it finds is logged when it changed."""
        try:
            done = await asyncio.to_thread(self._repository.refresh, self._clock.now())
        except UpdatesError as e:
            if str(e) != self.trouble:
                self._log("metadata of updates cannot be renewed", {"error": str(e)})
            self.trouble = str(e)
            return
        if self.trouble:
            self._log("metadata of updates is renewed again", {})
        self.trouble, self.last_look = "", self._clock.now()
        if done.signed:
            self._log("metadata of updates signed", {"roles": list(done.signed)})
        if done.warnings != self.warnings:
            for text in done.warnings:
                self._log("updates need offline keys", {"warning": text})
        self.warnings = done.warnings
