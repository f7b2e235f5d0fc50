"""Records trouble of the link, of the broker's nodes and of the store, so that somebody is told of it.

A trouble is recorded when it lasts for `PATIENCE`, and again when it is over. The store's own trouble cannot be
recorded while it lasts: the sinks that are known are told of it directly, once.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.kinds import STORE_TROUBLE
from controller.domain.notifications.model import AlertSeverity, Delivery, Message, ThreadStatus
from controller.domain.notifications.texts import clean
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.messages import Messages
from controller.ports.store import Store
from controller.service.containment.nodes import NodeWatch
from controller.service.fleet_state import FleetState
from controller.service.notifications.dispatcher import NotificationDispatcher

EVERY: Final = 5.0  # seconds between two looks
PATIENCE: Final = 60.0  # seconds
_BY: Final = "cordon"
_PAIRS: Final = (
    (AuditKind.LINK_LOST, AuditKind.LINK_RESTORED),
    (AuditKind.BROKER_UNREAD, AuditKind.BROKER_READ_AGAIN),
)
_MAX_KNOWN: Final = 200  # lines read at the start

Trouble = tuple[AuditKind, str]  # the kind that records it, and the node


class TroubleWatch:
    """Looks every five seconds; what was recorded before a restart is known from the audit."""

    def __init__(
        self,
        fleet: FleetState,
        store: Store,
        link: Messages,
        nodes: NodeWatch,
        dispatcher: NotificationDispatcher,
        log: Log,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._link = link
        self._nodes = nodes
        self._dispatcher = dispatcher
        self._log = log
        self._since: dict[Trouble, float] = {}  # monotonic seconds
        self._recorded: set[Trouble] = set()
        self._store_since = 0.0  # Unix seconds
        self._is_store_told = False

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._retried(self.load)
        while True:
            await self._retried(self.look)
            await asyncio.sleep(EVERY)

    async def _retried(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except StoreError as e:
            self._log("trouble cannot be recorded", {"error": str(e)})

    async def load(self) -> None:
        """Reads from the audit which troubles were recorded and not ended."""
        for begins, ends in _PAIRS:
            lines = [
                *await self._store.audit(kind=begins, limit=_MAX_KNOWN),
                *await self._store.audit(kind=ends, limit=_MAX_KNOWN),
            ]
            for line in sorted(lines, key=lambda one: (one.at, one.id)):
                trouble = (begins, str((line.entry.detail or {}).get("node", "")))
                if line.entry.kind is begins:
                    self._recorded.add(trouble)
                else:
                    self._recorded.discard(trouble)

    async def look(self) -> None:
        """Records what began or ended."""
        await self._look_at_store()
        if self._store.health.trouble:
            return
        now = self._fleet.clock.monotonic()
        present = dict(self._present())
        self._since = {trouble: self._since.get(trouble, now) for trouble in present}
        entries = [
            AuditEntry(kind, "", _BY, "", _detail(node, present[kind, node]), alert=True)
            for (kind, node), since in self._since.items()
            if (kind, node) not in self._recorded and now - since >= PATIENCE
        ]
        ended = [trouble for trouble in self._recorded if trouble not in present]
        ends = dict(_PAIRS)
        entries += [AuditEntry(ends[kind], "", _BY, "", _detail(node, "")) for kind, node in sorted(ended)]
        if entries:
            await self._fleet.record(*entries)
            self._recorded -= set(ended)
            self._recorded |= {(one.kind, str((one.detail or {}).get("node", ""))) for one in entries if one.alert}

    def _present(self) -> Iterable[tuple[Trouble, str]]:
        state = self._link.state
        if not state.connected:
            yield (AuditKind.LINK_LOST, ""), clean(state.detail)
        for one in self._nodes.unread:
            yield (AuditKind.BROKER_UNREAD, one.node), clean(one.reason)

    async def _look_at_store(self) -> None:
        health, now = self._store.health, self._fleet.clock.now()
        if health.trouble:
            self._store_since = self._store_since or health.since
            if not self._is_store_told and now - self._store_since >= PATIENCE:
                self._is_store_told = True
                await self._tell_directly(health.trouble, now)
        elif self._store_since:
            seconds, was_told = round(now - self._store_since), self._is_store_told
            self._store_since, self._is_store_told = 0.0, False
            if was_told or seconds >= PATIENCE:
                detail: dict[str, object] = {"seconds": seconds}
                await self._fleet.record(AuditEntry(AuditKind.STORE_RECOVERED, "", _BY, "", detail, alert=True))

    async def _tell_directly(self, trouble: str, now: float) -> None:
        """Tells every sink that takes it, at most once: nothing can be stored now."""
        headline = "Cordon: The store cannot write: nothing can be decided now."
        message = Message(
            STORE_TROUBLE, AlertSeverity.CRITICAL, ThreadStatus.EVENT, headline, "store:", headline, now, "",
            facts=(("trouble", clean(trouble)),),
        )  # fmt: skip
        sender = self._dispatcher.sender
        async with asyncio.TaskGroup() as group:
            for sink in self._dispatcher.sinks:
                if sink.takes(STORE_TROUBLE, AlertSeverity.CRITICAL, ""):
                    key = hashlib.sha256(f"{sink.sink_id}\nstore\n{self._store_since!r}".encode()).hexdigest()[:32]
                    group.create_task(sender.send(sink, Delivery(key, sink.name, now, message), 0), name=sink.name)


def _detail(node: str, why: str) -> dict[str, object]:
    return {**({"node": node} if node else {}), **({"reason": why} if why else {})}
