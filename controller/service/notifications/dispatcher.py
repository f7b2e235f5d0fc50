"""Plans what audit lines ask for, and keeps a worker for each sink.

The audit line is the notification until it was planned: it is in the commit of the decision, so no crash parts the two.
Nothing here is awaited by ingest or containment: a commit sets an event, and the rest happens on its own time.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from controller.domain.notifications.kinds import classify, may_notify
from controller.domain.notifications.model import Sink
from controller.domain.notifications.planning import REPEAT, Bursts, Line, Plan, Planner
from controller.domain.notifications.texts import Sentence
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.notifications import NotificationStore, Sender
from controller.service.fleet_state import FleetState
from controller.service.notifications.worker import DropReport, SinkWorker
from controller.service.unit_of_work import UnitOfWork

MAX_WAITING: Final = 1000  # deliveries of one sink
PAGE: Final = 500  # audit lines planned in one transaction
POLL: Final = 10.0  # seconds; lines of other processes (`cordon account`) wake nobody where one controller is alone
REMIND_EVERY: Final = 60.0  # seconds between two looks for reminders
MAX_REMINDERS: Final = 100  # at a time
PRUNE_EVERY: Final = 3600.0  # seconds
KEEP_SECONDS: Final = 30 * 86_400.0  # of ended deliveries and threads
KEEP_ROWS: Final = 10_000  # deliveries
RETRY: Final = 5.0  # seconds after the store failed


class NotificationWake:
    """Follows commits, and wakes the dispatcher if one has a line that may notify."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.is_wanted = False  # whether there is a sink

    def look(self) -> None:
        """Has the dispatcher look for lines of other controllers, whose commits are not followed here."""
        if self.is_wanted:
            self.event.set()

    def on_commit(self, batch: UnitOfWork) -> None:
        if self.is_wanted and batch.audit and any(may_notify(entry) for _, entry in batch.audit):
            self.event.set()


class NotificationDispatcher:
    """Plans and delivers until cancelled. `counts`: planned, and by sink `NAME:delivered` and so on."""

    def __init__(
        self,
        fleet: FleetState,
        store: NotificationStore,
        sender: Sender,
        wake: NotificationWake,
        sentence: Sentence,
        rand: Callable[[], float],
        log: Log,
    ) -> None:
        self.store = store
        self.sender = sender
        self.sinks: tuple[Sink, ...] = ()
        self.workers: dict[str, SinkWorker] = {}  # by `sink_id`
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._wake = wake
        self._sentence = sentence
        self._rand = rand
        self._log = log
        self._bursts = Bursts()
        self._page = PAGE
        self._drops = DropReport(fleet)
        self._changed = True
        self._remind_at = self._prune_at = 0.0

    def sinks_changed(self) -> None:
        """Has the sinks read again."""
        self._changed = True
        self._wake.event.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            tasks: dict[str, asyncio.Task[None]] = {}
            while True:
                self._wake.event.clear()
                pause = await self._run_safely(group, tasks)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.event.wait(), pause)

    async def _run_safely(self, group: asyncio.TaskGroup, tasks: dict[str, asyncio.Task[None]]) -> float:
        """Returns how long to wait; a failing store stops nothing for good."""
        try:
            if self._changed:
                await self._read_sinks(group, tasks)
            await self.plan()
        except StoreError as e:
            self._log("notifications wait for the store", {"error": str(e)})
            return RETRY
        except Exception as e:  # noqa: BLE001 - one line's trouble must not end the controller; it is tried again
            self._log("notifications cannot be planned", {"error": repr(e)})
            return RETRY
        return POLL

    async def _read_sinks(self, group: asyncio.TaskGroup, tasks: dict[str, asyncio.Task[None]]) -> None:
        self._changed = False
        try:
            await self.load()
        except StoreError:
            self._changed = True
            raise
        for sink_id in [one for one in tasks if one not in self.workers]:
            tasks.pop(sink_id).cancel()
        for sink_id, worker in self.workers.items():
            if sink_id not in tasks:
                tasks[sink_id] = group.create_task(worker.run(), name=f"notify-{worker.sink.name}")

    async def load(self) -> None:
        """Reads the sinks; workers of the others end."""
        sinks, states = tuple(await self.store.sinks()), await self.store.states()
        self.sinks, self._wake.is_wanted = sinks, bool(sinks)
        kept = self.workers
        self.workers = {
            sink.sink_id: kept.get(sink.sink_id)
            or SinkWorker(
                sink,
                states[sink.name],
                self._fleet,
                self.store,
                self.sender,
                self._drops,
                self.counts,
                self._rand,
                self._log,
            )
            for sink in sinks
            if sink.name in states
        }

    async def plan(self) -> None:
        """Plans every line that waits, then reminders; both are left alone where there is no sink."""
        while self.sinks and await self._plan_page():
            pass
        now = self._fleet.clock.now()
        if self.sinks and now >= self._remind_at:
            self._remind_at = now + REMIND_EVERY
            await self._remind(now)
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY
            await self.store.prune(now - KEEP_SECONDS, KEEP_ROWS)

    async def _plan_page(self) -> bool:
        """Plans one page; returns whether there was one."""
        lines, cursor = await self.store.unplanned(self._page)
        if not cursor:
            self._page = PAGE
            return False
        fleet = self._fleet
        page = []
        await fleet.load({one.entry.device_id for one in lines if one.entry.device_id}, fresh=True)
        for one in lines:
            device = fleet.get(one.entry.device_id) if one.entry.device_id else None
            page.append(Line(one.id, one.at, one.entry, "" if device is None else device.device_class))
        found = [classify(line.entry) for line in page]
        keys = {(sink.sink_id, one.thread) for one in found if one is not None for sink in self.sinks}
        threads = await self.store.threads(keys)
        acknowledged = await self.store.acknowledged({line.entry.case_id for line in page if line.entry.case_id})
        now = fleet.clock.now()
        try:
            plan = self._planner().plan(page, threads, acknowledged, now)
        except Exception as e:  # noqa: BLE001 - a line that cannot be told keeps none of the others back
            if self._page > 1:
                self._page = 1
                return True
            self._log("an audit line cannot be told", {"line": str(page[0].id), "error": repr(e)})
            plan = Plan()
        dropped = await self.store.plan(plan, cursor, MAX_WAITING, now)
        self.counts["planned"] += len(plan.deliveries)
        await self._wake_workers({one.sink for one in plan.deliveries.values()}, dropped)
        return True

    async def _remind(self, now: float) -> None:
        due = await self.store.due_reminders(now - REPEAT, MAX_REMINDERS)
        if not due:
            return
        plan = self._planner().remind(due, now)
        dropped = await self.store.plan(plan, {}, MAX_WAITING, now)
        await self._wake_workers({one.sink for one in plan.deliveries.values()}, dropped)

    async def _wake_workers(self, sinks: set[str], dropped: Mapping[str, int]) -> None:
        for worker in self.workers.values():
            if worker.sink.name in sinks:
                worker.wake.set()
        for sink, count in dropped.items():
            self.counts[f"{sink}:dropped"] += count
            await self._drops.tell(sink, count, "its queue was full")

    def _planner(self) -> Planner:
        zones: dict[str, tzinfo] = {one.quiet.zone: ZoneInfo(one.quiet.zone) for one in self.sinks if one.quiet}
        return Planner(self.sinks, zones, self._sentence, self._bursts)
