"""Audit of refused requests, bounded so that a flood of requests cannot fill the disk."""

import asyncio
import contextlib
from collections import OrderedDict
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.errors import StoreError
from controller.service.fleet_state import FleetState

WINDOW: Final = 60.0  # seconds in which the same refusal is recorded once
MAX_ROWS: Final = 60  # entries within `WINDOW`, of all peers
MAX_ALERTS: Final = 20  # alerts beyond `MAX_ROWS`, so that other refusals do not displace them
MAX_KEYS: Final = 1024  # refusals; the one recorded longest ago is dropped first
_WAIT: Final = 1.0  # seconds that a response waits for its entry, which is written in any case


class RefusalAudit:
    """Writes one audit entry per minute, peer and kind of refusal; the next entry counts the omitted ones."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._recorded_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._began = fleet.clock.monotonic()
        self._rows = 0
        self._omitted = 0

    async def record(
        self,
        kind: AuditKind,
        peer: str,
        reason: str,
        *,
        actor: str = "unknown",
        alert: bool = False,
        same: str | None = None,
    ) -> None:
        """Records that `peer` was refused; `reason` is one of a few fixed texts.

        `same`: what makes two refusals of a peer the same one; the reason by default.
        """
        what = f"{peer}\n{reason if same is None else same}"
        if not self._should_record(kind, what, MAX_ROWS + (MAX_ALERTS if alert else 0)):
            self._omitted += 1
            return
        detail: dict[str, object] = {"peer": peer, "reason": reason}
        if self._omitted:
            detail["more_refused_since_the_last_row"] = self._omitted
            self._omitted = 0
        if self._fleet.store.health.trouble:
            return  # a response would wait for the disk
        entry = AuditEntry(kind, "", actor, "", detail, alert)
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_WAIT):
                await self._fleet.record(entry)

    def _should_record(self, kind: str, what: str, most: int) -> bool:
        now = self._fleet.clock.monotonic()
        if now - self._began >= WINDOW:
            self._began, self._rows = now, 0
        last = self._recorded_at.get((kind, what))
        if self._rows >= most or (last is not None and now - last < WINDOW):
            return False
        self._rows += 1
        self._recorded_at[kind, what] = now
        self._recorded_at.move_to_end((kind, what))
        if len(self._recorded_at) > MAX_KEYS:
            self._recorded_at.popitem(last=False)
        return True
