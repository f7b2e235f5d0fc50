"""Warns of an EMQX that several controllers cannot rely on."""

import asyncio
from typing import Final

from controller.domain.policy.versions import is_older_version
from controller.ports.errors import BrokerError
from controller.ports.inspection import BrokerInspector
from controller.ports.log import Log

NEEDED: Final = "5.8.9"  # before it, wrong routes remain when many members of share groups leave at once
EVERY: Final = 600.0  # seconds


class BrokerVersionWatch:
    """Reads the versions of the nodes; `warning` is empty while all are new enough, or none could be read yet."""

    def __init__(self, inspector: BrokerInspector, log: Log) -> None:
        self._inspector = inspector
        self._log = log
        self.warning = ""

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Reads them; what cannot be read leaves the former warning."""
        try:
            versions = await self._inspector.versions()
        except BrokerError as e:
            self._log("the versions of EMQX's nodes are not known now", {"error": str(e)})
            return
        old = [one for one in versions if _is_old(one)]
        found = f"EMQX {', '.join(old)} may lose routes of several controllers: upgrade to {NEEDED}" if old else ""
        if found and found != self.warning:
            self._log(found, {"alert": True})
        self.warning = found


def _is_old(version: str) -> bool:
    try:
        return is_older_version(version, NEEDED, "semver")
    except ValueError:
        return False  # the audit says that it cannot be compared
