"""Delivers to one sink: oldest first, at least once, with pauses while it takes nothing."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.model import Delivery, DeliveryState, Sink, SinkState
from controller.domain.notifications.retry import ALERT_AFTER, Fault, Outcome, next_attempt
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.notifications import NotificationStore, Sender
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

IDLE: Final = 60.0  # seconds; whatever is queued wakes the worker
RETRY: Final = 5.0  # seconds after the store failed
TELL_DROPS_EVERY: Final = 3600.0  # seconds between two audit lines about one sink
_BY: Final = "cordon"


class DropReport:
    """Records that a sink was not sent everything, at most once an hour for each."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._told: dict[str, float] = {}
        self._counts: Counter[str] = Counter()

    async def tell(self, sink: str, count: int, why: str) -> None:
        """Counts messages that were dropped, and records them unless that was done within the hour."""
        self._counts[sink] += count
        now = self._fleet.clock.monotonic()
        if sink in self._told and now - self._told[sink] < TELL_DROPS_EVERY:
            return
        self._told[sink] = now
        detail: dict[str, object] = {"sink": sink, "dropped": self._counts.pop(sink), "why": why}
        await self._fleet.record(AuditEntry(AuditKind.NOTIFICATION_DROPPED, "", _BY, "", detail, alert=True))


class SinkWorker:
    """Delivers what is queued for `sink`; `wake` is set when more is. `state` is as of the last change."""

    def __init__(
        self,
        sink: Sink,
        state: SinkState,
        fleet: FleetState,
        store: NotificationStore,
        sender: Sender,
        drops: DropReport,
        counts: Counter[str],
        rand: Callable[[], float],
        log: Log,
    ) -> None:
        self.sink = sink
        self.state = state
        self.wake = asyncio.Event()
        self._fleet = fleet
        self._store = store
        self._sender = sender
        self._drops = drops
        self._counts = counts
        self._rand = rand
        self._log = log
        self._resume_at = 0.0  # Unix seconds: the sink is left alone before

    async def run(self) -> None:
        """Runs until cancelled; what was claimed is delivered again after the next start."""
        while True:
            try:
                pause = await self.run_once()
            except StoreError as e:
                self._log("a notification waits for the store", {"sink": self.sink.name, "error": str(e)})
                pause = RETRY
            except Exception as e:  # noqa: BLE001 - one sink's trouble must not end the controller
                self._log("a notification failed", {"sink": self.sink.name, "error": repr(e)})
                pause = RETRY
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), pause)

    async def run_once(self) -> float:
        """Delivers one message if one is due; returns for how long there is nothing to do (0: go on)."""
        self.wake.clear()
        now = self._fleet.clock.now()
        await self._alert_if_due(now)
        if now < self._resume_at:
            return self._until(self._resume_at, now)
        claimed = await self._store.claim(self.sink.name, now)
        if claimed is None:
            due = await self._store.next_due(self.sink.name)
            return IDLE if due is None else self._until(due, now)
        delivery, missed = claimed
        outcome = await self._sender.send(self.sink, delivery, missed)
        await self._follow(delivery, missed, outcome, self._fleet.clock.now())
        return 0.0

    def _until(self, at: float, now: float) -> float:
        """Seconds to wait: until a time, and not past the moment at which a failing sink is an alert."""
        ends = [at - now, IDLE]
        if self.state.failing_since and not self.state.is_alerted:
            ends.append(self.state.failing_since + ALERT_AFTER - now)
        return max(0.05, min(ends))

    async def _follow(self, delivery: Delivery, missed: int, outcome: Outcome, now: float) -> None:
        name = self.sink.name
        if outcome.fault is None:
            self._counts[f"{name}:delivered"] += 1
            await self._store.end(delivery.key, DeliveryState.DELIVERED, "", now, missed)
            await self._works(now)
            return
        self._counts[f"{name}:failed"] += 1
        at = next_attempt(outcome, delivery.attempts, delivery.queued_at, now, self._rand())
        if at is None:
            self._counts[f"{name}:given_up"] += 1
            await self._store.end(delivery.key, DeliveryState.GIVEN_UP, outcome.trouble, now)
            await self._drops.tell(name, 1, outcome.trouble)
        else:
            # What the sink does not take is still the first that it gets; what it refuses lets the others pass.
            due = delivery.due if outcome.fault is Fault.SINK else at
            await self._store.postpone(delivery.key, due, outcome.trouble)
        if outcome.fault is Fault.SINK:
            self._resume_at = now + (RETRY if at is None else at - now)
            await self._fails(outcome.trouble, now)

    async def _works(self, now: float) -> None:
        before = self.state
        if not before.failing_since:
            return
        self._log("a sink takes notifications again", {"sink": self.sink.name})
        detail: dict[str, object] = {"sink": self.sink.name, "seconds": round(now - before.failing_since)}
        entry = AuditEntry(AuditKind.NOTIFICATION_SINK_RECOVERED, "", _BY, "", detail)
        await self._set(SinkState(), (entry,) if before.is_alerted else (), now)

    async def _fails(self, trouble: str, now: float) -> None:
        if not self.state.failing_since:
            self._log("a sink takes no notification", {"sink": self.sink.name, "trouble": trouble})
            await self._set(SinkState(failing_since=now, trouble=trouble), (), now)
        self.state = replace(self.state, trouble=trouble)
        await self._alert_if_due(now)

    async def _alert_if_due(self, now: float) -> None:
        state = self.state
        if not state.failing_since or state.is_alerted or now - state.failing_since < ALERT_AFTER:
            return
        detail: dict[str, object] = {"sink": self.sink.name, "why": state.trouble}
        entry = AuditEntry(AuditKind.NOTIFICATION_SINK_FAILED, "", _BY, "", detail, alert=True)
        await self._set(replace(state, is_alerted=True), (entry,), now)

    async def _set(self, state: SinkState, entries: tuple[AuditEntry, ...], now: float) -> None:
        batch = UnitOfWork(audit=[(now, entry) for entry in entries])
        await self._store.set_failing(
            self.sink.name, state.failing_since, state.trouble, is_alerted=state.is_alerted, writes=batch.to_writes()
        )
        self.state = state
        self._fleet.publish_committed(batch)
