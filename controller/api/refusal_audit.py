"""Refused requests in the record: who tried what, without letting a guesser fill the disk."""

import asyncio
import contextlib
from collections import OrderedDict
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.errors import StoreError
from controller.service.fleet_state import FleetState

WINDOW: Final = 60.0  # seconds in which the same refusal is written down once
MAX_ROWS: Final = 60  # rows of refusals written within `WINDOW`, whoever asks
MAX_ALERTS: Final = 20  # alerts beyond those rows: noise must not drown them
MAX_KEYS: Final = 1024  # refusals remembered; the one told longest ago is forgotten first
_WAIT: Final = 1.0  # seconds an answer waits for its row; the row itself is not given up


class RefusalAudit:
    """Writes one row for each kind of refusal of each peer a minute; the next one tells how many were left out."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._began = fleet.clock.monotonic()
        self._rows = 0
        self._left_out = 0

    async def note(
        self, kind: AuditKind, peer: str, reason: str, *, actor: str = "unknown", alert: bool = False
    ) -> None:
        """Keep that `peer` was refused; `kind` is the row's kind, `reason` one of a few fixed texts."""
        if not self._due(kind, peer + "\n" + reason, MAX_ROWS + (MAX_ALERTS if alert else 0)):
            self._left_out += 1
            return
        detail: dict[str, object] = {"peer": peer, "reason": reason}
        if self._left_out:
            detail["more_refused_since_the_last_row"] = self._left_out
            self._left_out = 0
        if self._fleet.store.health.trouble:
            return  # waiting for the disk would hold up every answer
        entry = AuditEntry(kind, "", actor, "", detail, alert)
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_WAIT):
                await self._fleet.record(entry)

    def _due(self, kind: str, what: str, most: int) -> bool:
        now = self._fleet.clock.monotonic()
        if now - self._began >= WINDOW:
            self._began, self._rows = now, 0
        last = self._told.get((kind, what))
        if self._rows >= most or (last is not None and now - last < WINDOW):
            return False
        self._rows += 1
        self._told[kind, what] = now
        self._told.move_to_end((kind, what))
        if len(self._told) > MAX_KEYS:
            self._told.popitem(last=False)
        return True
