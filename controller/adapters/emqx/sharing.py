"""Calls that many sequences need in the same moment, made once for all of them: reads shared, rules written in bulk.

Without it a thousand devices that are contained at once would each ask for the same settings and write one row.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from controller.adapters.emqx import calls
from controller.adapters.emqx.answers import EmqxConflictError
from controller.adapters.emqx.api import EmqxApi
from controller.adapters.emqx.readback import Record
from controller.ports.broker import Rules, Step
from controller.ports.errors import BrokerError

MAX_BATCH: Final = calls.RULES_AT_ONCE
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    number: int
    value: T | None
    trouble: BrokerError | None


class SharedRead(Generic[T]):
    """One read for everybody who asked before it began; who asks while it is under way waits for the next one.

    So an answer is never older than its question, which a cache would not promise.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        """Nothing is read yet."""
        self._read = read
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: _Answer[T] | None = None

    async def get(self) -> T:
        """What a read that began after this call says.

        Raises:
            BrokerError: that read failed; everybody who waited for it is told.
        """
        begun_before = self._begun
        async with self._lock:
            if self._last is None or self._last.number <= begun_before:
                await self._ask()
            assert self._last is not None
            if self._last.trouble is not None:
                raise self._last.trouble
            value: T = self._last.value  # type: ignore[assignment]  # without trouble there is one
            return value

    async def _ask(self) -> None:
        self._begun += 1
        number = self._begun
        try:
            self._last = _Answer(number, await self._read(), None)
        except BrokerError as e:
            self._last = _Answer(number, None, e)


@dataclass(slots=True)
class _Row:
    client_id: str
    rules: Rules
    record: Record
    is_done: bool = False
    trouble: BrokerError | None = None


class RuleWriter:
    """Gives clients that have no rules theirs: one alone at once, those that come meanwhile together, 100 in a call."""

    def __init__(self, api: EmqxApi) -> None:
        """Nobody waits."""
        self._api = api
        self._lock = asyncio.Lock()
        self._waiting: list[_Row] = []

    async def write(self, client_id: str, rules: Rules, record: Record) -> None:
        """Write them; the step, also that of a call for many, goes to `record`.

        Raises:
            BrokerError: it was not written.
        """
        row = _Row(client_id, rules, record)
        self._waiting.append(row)
        try:
            async with self._lock:
                if not row.is_done:
                    await self._send_with(row)
        finally:
            if row in self._waiting:
                self._waiting.remove(row)
        if row.trouble is not None:
            raise row.trouble

    async def _send_with(self, first: _Row) -> None:
        """Send this row, and those that wait, up to what one call takes."""
        batch = [first, *(row for row in self._waiting if row is not first)][:MAX_BATCH]
        for row in batch:
            self._waiting.remove(row)
            row.is_done = True
            row.trouble = BrokerError("the call that wrote the rules of many was interrupted")
        if len(batch) == 1:
            await self._alone(first)
            return
        steps: list[Step] = []
        try:
            await self._api.urgently().noting(steps.append).add_rules([(row.client_id, row.rules) for row in batch])
        except EmqxConflictError:
            # One of them has been given rules since they were read: which, is not told, and none was written.
            await asyncio.gather(*(self._alone(row) for row in batch))
            return
        except BrokerError as e:
            _settle(batch, steps, e)
        else:
            _settle(batch, steps, None)

    async def _alone(self, row: _Row) -> None:
        try:
            await self._api.urgently().noting(row.record.add).write_rules(row.client_id, row.rules)
        except BrokerError as e:
            row.trouble = e
        else:
            row.trouble = None


def _settle(batch: list[_Row], steps: list[Step], trouble: BrokerError | None) -> None:
    for row in batch:
        row.trouble = trouble
        for step in steps:
            row.record.add(step)
        row.record.say("rules written in bulk", f"one call for {len(batch)} clients")


class Shared:
    """What all sequences of one broker share."""

    def __init__(self, api: EmqxApi) -> None:
        """Nothing is read or written yet."""
        self.sources = SharedRead(api.sources)
        self.authenticators = SharedRead(api.authenticators)
        self.rules = RuleWriter(api)
