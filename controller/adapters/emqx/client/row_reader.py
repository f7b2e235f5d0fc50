"""Reads rows of a table by owner: one by its own call, many that are wanted at the same moment by the listing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from controller.adapters.emqx.client.api import EmqxApi, PageRequest
from controller.adapters.emqx.client.http import StepListener
from controller.ports.broker import ProofStep
from controller.ports.errors import BrokerError

LISTED_FROM: Final = 32  # owners from which a listing may be read
ROWS_FOR_EACH: Final = 40  # most rows of the table for each owner: a listing that is longer costs more than the calls
PAGE: Final = 5000  # rows
MAX_BATCH: Final = 1000  # owners

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Pending(Generic[R]):
    name: str
    listener: StepListener
    is_done: bool = False
    row: R | None = None
    error: BrokerError | None = None


class BatchingRowReader(Generic[R]):
    """Each caller gets a row as of a read that began after its call."""

    def __init__(
        self,
        api: EmqxApi,
        single: Callable[[EmqxApi, str], Awaitable[R | None]],
        listing: PageRequest[Any],
        parse: Callable[[Any], tuple[str, R] | None],
    ) -> None:
        """`single` reads one owner's row; `parse` gives owner and row of a listed one, `None` for another kind."""
        self._api = api
        self._single = single
        self._listing = listing
        self._parse = parse
        self._lock = asyncio.Lock()
        self._waiting: list[_Pending[R]] = []
        self._rows = 0  # of the last listing

    async def get(self, name: str, listener: StepListener) -> R | None:
        """Returns the owner's row; `listener` gets the exchanges, also those that served many.

        Raises:
            BrokerError: it could not be read.
        """
        pending = _Pending[R](name, listener)
        self._waiting.append(pending)
        try:
            async with self._lock:
                if not pending.is_done:
                    await self._read(pending)
        finally:
            if pending in self._waiting:
                self._waiting.remove(pending)
        if pending.error is not None:
            raise pending.error
        return pending.row

    async def _read(self, first: _Pending[R]) -> None:
        batch = [first, *(one for one in self._waiting if one is not first)][:MAX_BATCH]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        for one in batch:
            one.is_done, one.error = True, BrokerError("the call that read many rows was interrupted")
        if len(batch) >= LISTED_FROM and self._rows <= ROWS_FOR_EACH * len(batch):
            batch = await self._read_listing(batch)
        await asyncio.gather(*(self._read_single(one) for one in batch))

    async def _read_listing(self, batch: Sequence[_Pending[R]]) -> list[_Pending[R]]:
        """Returns those whose row was not listed: rows that move between pages may be left out."""
        steps: list[ProofStep] = []
        wanted: dict[str, list[_Pending[R]]] = {}
        for one in batch:
            wanted.setdefault(one.name, []).append(one)
        found: set[str] = set()
        self._rows = 0
        try:
            async for page in self._api.with_listener(steps.append).pages(self._listing, PAGE):
                self._rows += len(page)
                for raw in page:
                    parsed = self._parse_wanted(raw, wanted)
                    if parsed is not None:
                        found.add(parsed[0])
                        for one in wanted[parsed[0]]:
                            one.row, one.error = parsed[1], None
        except BrokerError as e:
            for one in batch:
                one.error = e
            return []
        steps.append(ProofStep("read for many", "", "", f"one listing for {len(batch)} clients", 0.0))
        for one in batch:
            if one.name in found:
                for step in steps:
                    one.listener(step)
        return [one for one in batch if one.name not in found]

    def _parse_wanted(self, raw: Any, wanted: dict[str, list[_Pending[R]]]) -> tuple[str, R] | None:
        owner = raw.get("clientid", raw.get("who")) if isinstance(raw, dict) else None
        return self._parse(raw) if owner in wanted else None

    async def _read_single(self, one: _Pending[R]) -> None:
        try:
            one.row, one.error = await self._single(self._api.with_listener(one.listener), one.name), None
        except BrokerError as e:
            one.error = e
