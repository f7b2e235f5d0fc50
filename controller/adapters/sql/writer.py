"""The writer thread: takes all queued work, commits once, and reports all results in one call to the loop.

A transaction that fails because of the database or the machine is retried, in order. A failure caused by the data of
one caller fails for that caller only.
"""

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controller.adapters.sql.connection import WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import StoreHealth
from schemas.backoff import Backoff


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A caller's work and what it waits for."""

    work: WriteJob
    future: asyncio.Future[Any]


class GivenUpError(Exception):
    """Nothing is written any more; the cause says why."""


class GroupWriter(ABC):
    """Owns the connection that writes; `submit` and `stop` are called on the loop's thread.

    `place` names the store in the log. `begin` starts the thread, once the engine's part is constructed.
    """

    def __init__(self, place: str, options: StoreOptions, now: Callable[[], float], log: Log) -> None:
        self._place = place
        self._options = options
        self._now = now
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: deque[QueuedJob] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = 0.0
        self._idle_seconds = options.idle_seconds
        self.health = StoreHealth()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    @abstractmethod
    def _attempt(self, group: Sequence[QueuedJob]) -> list[object]:
        """Commits; returns the result or error of each work.

        Raises:
            Exception: nothing was stored; a retry may help.
            GivenUpError: nothing will be stored any more.
        """

    @abstractmethod
    def _words_after(self, error: Exception) -> str:
        """Brings the connection into a state for the next attempt; returns what failed, for the operator."""

    @abstractmethod
    def _on_idle(self) -> float | None:
        """Called when there was no work for a while; returns the seconds until the next call, `None` for never.

        Raises:
            GivenUpError: nothing will be stored any more.
        """

    @abstractmethod
    def _refusal(self, cause: BaseException) -> StoreError:
        """The error of work that was given up."""

    def _may_join(self, _before: WriteJob, _work: WriteJob) -> bool:
        """Whether `_work` may be in the transaction of `_before`, which is queued before it."""
        return True

    def _on_written(self) -> None:  # noqa: B027 - an engine may have nothing to do
        """Called after each transaction."""

    def _on_given_up(self, refusal: StoreError) -> None:  # noqa: B027 - as above
        """Called once, on the loop's thread, when nothing is written any more."""

    def submit(self, work: WriteJob) -> asyncio.Future[Any]:
        """Queues `work`; the future has its result once it is on disk.

        Raises:
            StoreError: closed, or the queue is full.
        """
        if self._closing.is_set():
            raise StoreError("the store is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            if self._waiting_bytes + work.size > self._options.max_waiting_bytes and self._queue:
                raise StoreError(f"too much waits to be written ({self._waiting_bytes} bytes): {self.health.trouble}")
            self._queue.append(QueuedJob(work, future))
            self._waiting_bytes += work.size
            self._changed.notify()
        return future

    async def stop(self) -> None:
        """Writes the queue, or gives up after `close_seconds`; every future is resolved."""
        self._deadline = time.monotonic() + self._options.close_seconds
        self._closing.set()
        with self._changed:
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        cause: BaseException | None = None
        while True:
            group: list[QueuedJob] = []
            try:
                group = self._take(idle=cause is None)
                if not group:
                    return
                # Once something was given up nothing later may be kept: call order is a promise.
                outcomes = self._write(group) if cause is None else self._refused(group, cause)
            except GivenUpError as gave_up:
                cause = gave_up.__cause__ or gave_up
                outcomes = self._refused(group, cause)
                self._call_loop(self._on_given_up, self._refusal(cause))
            self._call_loop(_tell, group, outcomes)

    def _refused(self, group: Sequence[QueuedJob], cause: BaseException) -> list[object]:
        return [self._refusal(cause) for _ in group]

    def _take(self, *, idle: bool) -> list[QueuedJob]:
        """Returns the next group; empty when the store closes and the queue is empty."""
        group: list[QueuedJob] = []
        rows = size = 0
        seconds = self._idle_seconds if idle else None
        while not self._wait_for_work(seconds):
            seconds = self._on_idle()
        with self._changed:
            while self._queue:
                work = self._queue[0].work
                rows += work.rows
                size += work.size
                if group and not (
                    rows <= self._options.max_group_rows
                    and size <= self._options.max_group_bytes
                    and self._may_join(group[-1].work, work)
                ):
                    break
                group.append(self._queue.popleft())
                self._waiting_bytes -= work.size
        return group

    def _wait_for_work(self, seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._queue) or self._closing.is_set(), seconds)

    def _write(self, group: Sequence[QueuedJob]) -> list[object]:
        backoff = Backoff(self._options.retry_floor_seconds, self._options.retry_ceiling_seconds)
        attempt = 0
        while True:
            try:
                outcomes = self._attempt(group)
            except GivenUpError:
                raise
            except Exception as error:
                self._step_back(error)
                if not self._pause(backoff.ceiling(attempt)):
                    raise GivenUpError from error
                attempt += 1
            else:
                self._step_forward()
                return outcomes

    def _step_back(self, error: Exception) -> None:
        text = self._words_after(error)
        if not self.health.trouble:
            self._call_loop(self._log, "store cannot write", {"path": self._place, "trouble": text})
            self.health = StoreHealth(text, self._now())
        elif text != self.health.trouble:
            self.health = StoreHealth(text, self.health.since)

    def _step_forward(self) -> None:
        if self.health.trouble:
            seconds = round(self._now() - self.health.since, 3)
            self._call_loop(self._log, "store writes again", {"path": self._place, "after_seconds": seconds})
            self.health = StoreHealth()
        self._on_written()

    def _pause(self, seconds: float) -> bool:
        """Waits before the next attempt; False when there is none."""
        if not self._closing.wait(seconds):
            return True
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._options.retry_floor_seconds, left))
        return True

    def _call_loop(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)


def _tell(group: Sequence[QueuedJob], outcomes: list[object]) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        if job.future.done():
            continue  # the caller was cancelled
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
