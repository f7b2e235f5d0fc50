"""Calls that many sequences need in the same moment, made once for all of them: reads shared, rules written in bulk.

Without it a thousand devices that are contained at once would each ask for the same settings and write one row.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import ClientRow
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.containment.verification import ProofRecorder
from controller.ports.broker import ProofStep
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerError

MAX_BATCH: Final = requests.RULES_AT_ONCE
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    number: int
    value: T | None
    trouble: BrokerError | None


class SingleFlightRead(Generic[T]):
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
    rules: AccessRules
    record: ProofRecorder
    is_done: bool = False
    trouble: BrokerError | None = None


class BatchingRuleWriter:
    """Gives clients that have no rules theirs: one alone at once, those that come meanwhile together, 100 in a call."""

    def __init__(self, api: EmqxApi) -> None:
        """Nobody waits."""
        self._api = api
        self._lock = asyncio.Lock()
        self._waiting: list[_Row] = []

    async def write(self, client_id: str, rules: AccessRules, record: ProofRecorder) -> None:
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
        steps: list[ProofStep] = []
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


def _settle(batch: list[_Row], steps: list[ProofStep], trouble: BrokerError | None) -> None:
    for row in batch:
        row.trouble = trouble
        for step in steps:
            row.record.add(step)
        row.record.say("rules written in bulk", f"one call for {len(batch)} clients")


@dataclass(slots=True)
class _Asked:
    client_id: str
    record: ProofRecorder | None
    is_done: bool = False
    row: ClientRow | None = None
    trouble: BrokerError | None = None


@dataclass(slots=True)
class BulkReadSupport:
    """Whether this broker was seen to answer for several ids in one call: only then does "not listed" mean absent."""

    holds: bool = False


class BatchingClientReader:
    """Reads sessions: one alone by its own call, those that are asked for meanwhile together, 100 in a call."""

    def __init__(self, api: EmqxApi, trust: BulkReadSupport, *, learns: bool) -> None:
        """Nobody is asked for; `api` is bound to a node where that node's word is wanted.

        `learns`: asks for several also while it is not known whether this broker can tell, to find out.
        """
        self._api = api
        self._learns = learns
        self._trust = trust
        self._lock = asyncio.Lock()
        self._waiting: list[_Asked] = []

    async def get(self, client_id: str, record: ProofRecorder | None = None) -> ClientRow | None:
        """The client's session as a call that began after this one tells, `None` if there is none.

        Raises:
            BrokerError: it could not be read.
        """
        asked = _Asked(client_id, record)
        if not (self._learns or self._trust.holds):
            await self._alone(asked)
            return _answer(asked)
        self._waiting.append(asked)
        try:
            async with self._lock:
                if not asked.is_done:
                    await self._ask_with(asked)
        finally:
            if asked in self._waiting:
                self._waiting.remove(asked)
        return _answer(asked)

    async def _ask_with(self, first: _Asked) -> None:
        batch = [first, *(one for one in self._waiting if one is not first)][: requests.CLIENTS_AT_ONCE]
        for one in batch:
            self._waiting.remove(one)
            one.is_done = True
            one.trouble = BrokerError("the call that read many clients was interrupted")
        if len(batch) == 1:
            await self._alone(first)
            return
        steps: list[ProofStep] = []
        found: dict[str, ClientRow] = {}
        trouble: BrokerError | None = None
        try:
            ids = tuple(dict.fromkeys(one.client_id for one in batch))
            found = {row.clientid: row for row in await self._api.noting(steps.append).clients(ids)}
            self._trust.holds = self._trust.holds or len(found.keys() & set(ids)) > 1
        except BrokerError as e:
            trouble = e
        unsure = [one for one in batch if trouble is None and one.client_id not in found and not self._trust.holds]
        for one in batch:
            one.row, one.trouble = found.get(one.client_id), trouble
            if one.record is not None:
                for step in steps:
                    one.record.add(step)
        await asyncio.gather(*(self._alone(one) for one in unsure))

    async def _alone(self, asked: _Asked) -> None:
        api = self._api if asked.record is None else self._api.noting(asked.record.add)
        try:
            asked.row, asked.trouble = await api.client(asked.client_id), None
        except BrokerError as e:
            asked.trouble = e


def _answer(asked: _Asked) -> ClientRow | None:
    if asked.trouble is not None:
        raise asked.trouble
    return asked.row


class CoalescedRequests:
    """What all sequences of one broker share. `clients_at`: by the node whose word is wanted, empty for any."""

    def __init__(self, api: EmqxApi) -> None:
        """Nothing is read or written yet."""
        self.sources = SingleFlightRead(api.sources)
        self.authenticators = SingleFlightRead(api.authenticators)
        self.rules = BatchingRuleWriter(api)
        trust = BulkReadSupport()
        # Who asks urgently is about a device that reported a moment ago: it is there, or was.
        self.urgent_clients = BatchingClientReader(api.urgently(), trust, learns=True)
        self.clients_at = {base: BatchingClientReader(api.at(base), trust, learns=False) for base in api.addresses}
        self.clients_at[""] = BatchingClientReader(api, trust, learns=True)
