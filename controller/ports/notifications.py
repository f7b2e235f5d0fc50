"""Where notifications wait and where they go: the store of sinks, threads and deliveries, and what sends them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controller.domain.notifications.model import Acknowledgement, Delivery, DeliveryState, Sink, SinkState, Thread
from controller.domain.notifications.planning import Plan, ThreadKey
from controller.domain.notifications.retry import Outcome
from controller.ports.store import StoredAuditEntry, StoreWrites


class SinkChange(StrEnum):
    """What became of a change of the sinks."""

    DONE = "done"
    EXISTS = "exists"
    TOO_MANY = "too many"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A delivery as `cordon notify log` shows it; `ended_at` is 0 while it is pending."""

    seq: int
    delivery: Delivery
    state: DeliveryState
    ended_at: float
    acknowledged: Acknowledgement | None = None


class NotificationStore(Protocol):
    """Sinks, threads and deliveries beside the audit log, whose lines they tell of.

    A line is its own notification until it was planned: the cursor is the last line of each writer that was, and moves
    in the transaction that stores the deliveries. So a crash loses no notification, and doubles none.
    """

    async def sinks(self) -> Sequence[Sink]:
        """Every sink, by name."""
        ...

    async def add_sink(self, sink: Sink, most: int, writes: StoreWrites) -> SinkChange:
        """Adds a sink beside at most `most` - 1 others, and commits `writes` with it; it is told of later lines."""
        ...

    async def remove_sink(self, name: str, writes: StoreWrites) -> SinkChange:
        """Removes a sink with all that it was to be sent, and commits `writes` with it."""
        ...

    async def unplanned(self, limit: int) -> tuple[Sequence[StoredAuditEntry], Mapping[int, int]]:
        """Lines after the cursor that may notify, oldest first; and where it is once they are planned.

        Of each writer the last of at most `limit` lines; empty if no line waits.
        """
        ...

    async def threads(self, keys: Collection[ThreadKey]) -> dict[ThreadKey, Thread]:
        """Those of the threads that exist."""
        ...

    async def acknowledged(self, case_ids: Collection[str]) -> frozenset[str]:
        """Those of the cases that somebody acknowledged."""
        ...

    async def due_reminders(self, told_before: float, limit: int) -> Sequence[Thread]:
        """Open, critical threads of cases that nobody acknowledged and that were last told before a time."""
        ...

    async def plan(self, plan: Plan, cursor: Mapping[int, int], most: int, now: float) -> dict[str, int]:
        """Stores a plan and moves the cursor; returns how many of each sink were dropped since more than `most` waited.

        A delivery whose key is there replaces it while it was not begun; else it counts as told.
        """
        ...

    async def claim(self, sink: str, now: float) -> tuple[Delivery, int] | None:
        """Counts an attempt of the delivery that is due first, and returns it with the number of dropped ones to tell.

        Returns `None` if none is due.
        """
        ...

    async def next_due(self, sink: str) -> float | None:
        """When the next delivery is due (Unix seconds)."""
        ...

    async def postpone(self, key: str, due: float, trouble: str) -> None:
        """Stores when a delivery is tried again, and why."""
        ...

    async def end(self, key: str, state: DeliveryState, trouble: str, now: float, told: int = 0) -> None:
        """Ends a delivery; `told` of the dropped ones are told with it."""
        ...

    async def record_test(self, delivery: Delivery, state: DeliveryState, now: float) -> None:
        """Adds a test message to the log."""
        ...

    async def states(self) -> dict[str, SinkState]:
        """The running state of each sink, by name."""
        ...

    async def set_failing(
        self, sink: str, since: float, trouble: str, *, is_alerted: bool, writes: StoreWrites
    ) -> None:
        """Stores since when a sink takes nothing (0: it does), and commits `writes` with it."""
        ...

    async def acknowledge(self, one: Acknowledgement, writes: StoreWrites) -> None:
        """Stores an acknowledgement, and commits `writes` with it; the first one of a case stays."""
        ...

    async def log(
        self, *, sink: str | None = None, case_id: str | None = None, limit: int = 200, after: int = 0
    ) -> Sequence[LoggedDelivery]:
        """Deliveries, newest first; `after`: `seq` of the one before the page, 0 for the first page."""
        ...

    async def prune(self, before: float, keep: int) -> int:
        """Deletes ended deliveries and ended threads from before a time, and all ended ones but the newest `keep`."""
        ...


class Sender(Protocol):
    """Sends one message to a sink, within time limits of its own; never raises."""

    async def send(self, sink: Sink, delivery: Delivery, missed: int) -> Outcome:
        """Returns what became of it; cancelling ends the attempt."""
        ...
