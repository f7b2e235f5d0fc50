"""Shares requests between plans that run at the same time: single-flight reads, rules and sessions in batches.

Without it a thousand devices that are contained at once would each read the same settings and write one row.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from controller.adapters.emqx.client import left_open_requests, models, requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban
from controller.adapters.emqx.client.http import ApiRequest, StepListener
from controller.adapters.emqx.client.models import ClientRow, ListingPage
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.client.row_reader import BatchingRowReader
from controller.domain.containment.plan import Subject, SubjectKind
from controller.ports.broker import ProofStep
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.errors import BrokerError, BrokerWaitsError

MAX_BATCH: Final = requests.RULES_AT_ONCE
RECENT_SECONDS: Final = 5.0  # how long a `RecentRead` is used again
BLOCKED_SECONDS: Final = 5.0  # without bulk reads after one waited for a hung node
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    number: int
    value: T | None
    error: BrokerError | None


class SingleFlightRead(Generic[T]):
    """A read that concurrent callers share: each gets a read that began after its call.

    So an answer is never older than its question, which a cache would not promise.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: _Outcome[T] | None = None

    async def get(self) -> T:
        """Waits for a read that begins after this call.

        Raises:
            BrokerError: that read failed, for all callers that waited for it.
        """
        begun_before = self._begun
        async with self._lock:
            if self._last is None or self._last.number <= begun_before:
                await self._start()
            assert self._last is not None
            if self._last.error is not None:
                raise self._last.error
            value: T = self._last.value  # type: ignore[assignment]  # without an error there is one
            return value

    async def _start(self) -> None:
        self._begun += 1
        number = self._begun
        try:
            self._last = _Outcome(number, await self._read(), None)
        except BrokerError as e:
            self._last = _Outcome(number, None, e)


class RecentRead(Generic[T]):
    """A shared read whose value is used again for `RECENT_SECONDS`."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._flight = SingleFlightRead(read)
        self._last: tuple[T, float] | None = None

    async def get(self) -> T:
        """Raises `BrokerError` where it has to be read and cannot be."""
        now = asyncio.get_running_loop().time()
        if self._last is None or now - self._last[1] >= RECENT_SECONDS:
            self._last = (await self._flight.get(), now)
        return self._last[0]


@dataclass(slots=True)
class _PendingWrite:
    client: Subject
    rules: AccessRules
    listener: StepListener
    is_done: bool = False
    error: BrokerError | None = None


class BatchingRuleWriter:
    """Writes the rules of clients that have none: a single one at once, those that arrive meanwhile in batches."""

    def __init__(self, api: EmqxApi) -> None:
        self._api = api.with_priority()
        self._lock = asyncio.Lock()
        self._waiting: list[_PendingWrite] = []

    async def write(self, client: Subject, rules: AccessRules, listener: StepListener) -> None:
        """Writes the rules; `listener` gets the exchange, also that of a batch.

        Raises:
            BrokerError: the rules were not written.
        """
        row = _PendingWrite(client, rules, listener)
        self._waiting.append(row)
        try:
            async with self._lock:
                if not row.is_done:
                    await self._send_batch(row)
        finally:
            if row in self._waiting:
                self._waiting.remove(row)
        if row.error is not None:
            raise row.error

    async def _send_batch(self, first: _PendingWrite) -> None:
        """Sends this row and those that wait, up to the size of a batch."""
        batch = [first, *(row for row in self._waiting if row is not first)][:MAX_BATCH]
        for row in batch:
            self._waiting.remove(row)
            row.is_done = True
            row.error = BrokerError("the call that wrote the rules of many was interrupted")
        if len(batch) == 1:
            await self._send_single(first)
            return
        steps: list[ProofStep] = []
        request = requests.add_rules([(row.client, row.rules) for row in batch])
        try:
            await self._api.with_listener(steps.append).send(request)
        except EmqxConflictError:
            # A client has been given rules since they were read; EMQX does not tell which, and wrote none.
            await asyncio.gather(*(self._send_single(row) for row in batch))
            return
        except BrokerError as e:
            _resolve(batch, steps, e)
        else:
            _resolve(batch, steps, None)

    async def _send_single(self, row: _PendingWrite) -> None:
        try:
            await self._api.with_listener(row.listener).send(requests.write_rules(row.client, row.rules))
        except BrokerError as e:
            row.error = e
        else:
            row.error = None


def _resolve(batch: Sequence[_PendingWrite], steps: Sequence[ProofStep], error: BrokerError | None) -> None:
    size = ProofStep("rules written in bulk", "", "", f"one call for {len(batch)} clients", 0.0)
    for row in batch:
        row.error = error
        for step in (*steps, size):
            row.listener(step)


@dataclass(slots=True)
class _PendingRead:
    client_id: str
    listener: StepListener | None
    is_done: bool = False
    row: ClientRow | None = None
    error: BrokerError | None = None


@dataclass(slots=True)
class BulkReadSupport:
    """Whether this broker was seen to answer for several ids in one call: only then does "not listed" mean absent.

    `blocked_until`: loop seconds; such a call asks every node, and one of them hung a moment ago.
    """

    holds: bool = False
    blocked_until: float = 0.0


class BatchingClientReader:
    """Reads sessions: a single one by its own call, those that are asked for meanwhile in batches."""

    def __init__(self, api: EmqxApi, support: BulkReadSupport, *, learns: bool) -> None:
        """`learns`: also asks for several ids while it is not known whether this broker can answer, to find out."""
        self._api = api
        self._learns = learns
        self._support = support
        self._lock = asyncio.Lock()
        self._waiting: list[_PendingRead] = []

    async def get(self, client_id: str, listener: StepListener | None = None) -> ClientRow | None:
        """Returns the client's session as of a read that began after this call, `None` if there is none.

        Raises:
            BrokerError: it could not be read.
        """
        pending = _PendingRead(client_id, listener)
        if (self._learns or self._support.holds) and asyncio.get_running_loop().time() >= self._support.blocked_until:
            self._waiting.append(pending)
            try:
                async with self._lock:
                    if not pending.is_done:
                        await self._send_batch(pending)
            finally:
                if pending in self._waiting:
                    self._waiting.remove(pending)
        else:
            await self._send_single(pending)
        if pending.error is not None:
            raise pending.error
        return pending.row

    async def _send_batch(self, first: _PendingRead) -> None:
        batch = [first, *(row for row in self._waiting if row is not first)][: requests.CLIENTS_AT_ONCE]
        for pending in batch:
            self._waiting.remove(pending)
            pending.is_done = True
            pending.error = BrokerError("the call that read many clients was interrupted")
        if len(batch) == 1:
            await self._send_single(first)
            return
        steps: list[ProofStep] = []
        sessions: dict[str, ClientRow] = {}
        error: BrokerError | None = None
        ids = tuple(dict.fromkeys(pending.client_id for pending in batch))
        try:
            page = await self._api.with_listener(steps.append).send(requests.read_clients(ids))
            sessions = {row.clientid: row for row in page.data}
            self._support.holds = self._support.holds or len(sessions.keys() & set(ids)) > 1
        except BrokerWaitsError:
            # EMQX reads a single client from its own node only.
            self._support.blocked_until = asyncio.get_running_loop().time() + BLOCKED_SECONDS
            await asyncio.gather(*(self._send_single(pending) for pending in batch))
            return
        except BrokerError as e:
            error = e
        for pending in batch:
            pending.row, pending.error = sessions.get(pending.client_id), error
            if pending.listener is not None:
                for step in steps:
                    pending.listener(step)
        if error is None and not self._support.holds:
            unlisted = [pending for pending in batch if pending.row is None]
            await asyncio.gather(*(self._send_single(pending) for pending in unlisted))

    async def _send_single(self, pending: _PendingRead) -> None:
        api = self._api if pending.listener is None else self._api.with_listener(pending.listener)
        try:
            pending.row, pending.error = await api.send(requests.read_client(pending.client_id)), None
        except BrokerError as e:
            pending.error = e


class CoalescedRequests:
    """The requests that all plans of one broker share. `clients_at`: by the node that has to answer, empty for any."""

    def __init__(self, api: EmqxApi) -> None:
        self.sources = SingleFlightRead(lambda: api.send(requests.read_sources()))
        self.authenticators = SingleFlightRead(lambda: api.send(requests.read_authenticators()))
        # What a restriction leaves open is said, not decided: a moment's age does no harm.
        self.access_settings = RecentRead(lambda: api.send(left_open_requests.read_access_settings()))
        self.auto_subscribe = RecentRead(lambda: api.send(left_open_requests.read_auto_subscribe()))
        self.delayed = RecentRead(lambda: api.send(left_open_requests.list_delayed()))
        self.rules = BatchingRuleWriter(api)
        support = BulkReadSupport()
        # Urgent reads are about devices that reported a moment ago: their sessions are there, or were.
        self.urgent_clients = BatchingClientReader(api.with_priority(), support, learns=True)
        self.clients_at = {
            base: BatchingClientReader(api.on_node(base), support, learns=False) for base in api.addresses
        }
        self.rules_at = {base: _rules_reader(api.on_node(base)) for base in api.addresses}
        self.rules_at[""] = _rules_reader(api.with_priority())
        self.bans_at = {base: _bans_reader(api.on_node(base)) for base in api.addresses}
        self.clients_at[""] = BatchingClientReader(api, support, learns=True)


def _rules_reader(api: EmqxApi) -> BatchingRowReader[AccessRules]:
    async def single(at: EmqxApi, client_id: str) -> AccessRules | None:
        return await at.send(requests.read_rules(Subject.client(client_id)))

    def parse(raw: Any) -> tuple[str, AccessRules]:
        row = models.validated(models.ClientRulesRow, raw)
        return row.clientid, models.rules_of(row)

    return BatchingRowReader(api, single, _list_rules, parse)


def _bans_reader(api: EmqxApi) -> BatchingRowReader[Ban]:
    async def single(at: EmqxApi, client_id: str) -> Ban | None:
        subject = Subject.client(client_id)
        return await find_ban(at, partial(requests.read_ban, subject), subject)

    def parse(raw: Any) -> tuple[str, Ban] | None:
        row = models.validated(models.BanRow, raw)
        return (row.who, row.ban()) if row.kind == SubjectKind.CLIENT else None

    return BatchingRowReader(api, single, _list_bans, parse)


def _list_rules(page: int, limit: int) -> ApiRequest[ListingPage[Any]]:
    return requests.list_rows(requests.CLIENT_RULES, "list rules", Any, page, limit)


def _list_bans(page: int, limit: int) -> ApiRequest[ListingPage[Any]]:
    return requests.list_rows(requests.BANS, "list bans", Any, page, limit)
