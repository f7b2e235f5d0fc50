"""The hot path: a batch of messages is decided and committed, then acknowledged in order and answered by receipts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.domain.effects import SendReceipt
from controller.ports.errors import ConflictError
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage, Messages
from controller.service.conflicts import pause
from controller.service.fleet_state import FleetState
from controller.service.ingest.decisions import Answers, BatchDecisions
from controller.service.ingest.rate_limit import RateLimiter, device_ids
from controller.service.ingest.receipts import receipt_json
from controller.service.ingest.signatures import ReportSignatureVerifier
from controller.service.unit_of_work import UnitOfWork
from schemas.enrolment import RenewRequest
from schemas.topics import PRESENCE_PREFIX, DownChannel, UpChannel, down

MAX_BATCH: Final = 512  # messages
BATCHES_AHEAD: Final = 1  # decided batches that wait while one is written and another is decided
RECEIPT_EXPIRY: Final = 600  # seconds; by then the device has sent its message again
HELD_PAUSE: Final = 0.5  # seconds without messages after which deferred statuses are processed
_RESULT: Final = f"/{UpChannel.RESULT.value}"


@dataclass(slots=True, eq=False)
class _Decided:
    """A batch whose commit is enqueued; `committing` is awaited before it is acknowledged."""

    messages: Sequence[IncomingMessage]
    admitted: Sequence[IncomingMessage]
    excess: Sequence[IncomingMessage]
    answers: Answers = field(default_factory=dict)
    batch: UnitOfWork = field(default_factory=UnitOfWork)
    committing: Awaitable[None] | None = None


class Ingest:
    """Processes the messages of devices.

    `counts`: received, confirmed (committed and acknowledged), reports (full ones), deltas, heartbeats, signed,
    missing (sequence numbers of signed reports), refused:<reason>, unanswered (rejections without a receipt),
    receipts_not_sent, repeated (batches that were decided again: another controller was faster).
    """

    def __init__(
        self,
        messages: Messages,
        fleet: FleetState,
        log: Log,
        rate_limiter: RateLimiter | None = None,
        verifier: ReportSignatureVerifier | None = None,
        on_renewal: Callable[[str, RenewRequest], None] | None = None,
        on_presence: Callable[[Sequence[IncomingMessage]], None] | None = None,
    ) -> None:
        """`on_renewal` answers requests for a certificate later; `on_presence` gets the broker's presence messages."""
        self._messages = messages
        self._fleet = fleet
        self._rate_limiter = rate_limiter or RateLimiter()
        self.counts: Counter[str] = Counter()
        self.decisions = BatchDecisions(fleet, log, self._rate_limiter, verifier, on_renewal, self.counts)
        self._on_presence = on_presence
        self._log = log
        self._deciding = asyncio.Lock()  # held while a batch is decided, and while refused ones are decided again
        self._under_way: list[_Decided] = []  # batches that are not answered yet, in order

    async def run(self) -> None:
        """Until cancelled: while one batch is committed, the next one is decided."""
        decided: asyncio.Queue[_Decided] = asyncio.Queue(BATCHES_AHEAD)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decide_all(decided), name="ingest-decide")
            group.create_task(self._confirm_all(decided), name="ingest-confirm")

    async def _decide_all(self, decided: asyncio.Queue[_Decided]) -> None:
        while True:
            await decided.put(await self._decide(await self._receive()))

    async def _confirm_all(self, decided: asyncio.Queue[_Decided]) -> None:
        while True:
            await self._confirm(await decided.get())

    async def _receive(self) -> Sequence[IncomingMessage]:
        if not self._rate_limiter.has_deferred_status:
            return await self._messages.receive(MAX_BATCH)
        try:
            async with asyncio.timeout(HELD_PAUSE):
                return await self._messages.receive(MAX_BATCH)
        except TimeoutError:
            return ()

    async def process_batch(self, messages: Sequence[IncomingMessage]) -> None:
        """Decides, commits, acknowledges and answers one batch, in this order."""
        await self._confirm(await self._decide(messages))

    async def _decide(self, messages: Sequence[IncomingMessage]) -> _Decided:
        if self._on_presence is None:
            reported = messages
        else:
            reported = [one for one in messages if not one.topic.startswith(PRESENCE_PREFIX)]
            if len(reported) < len(messages):
                self._on_presence([one for one in messages if one.topic.startswith(PRESENCE_PREFIX)])
        async with self._deciding:
            await self._load_commands(reported)
            moment = self._fleet.clock.monotonic()
            decided = _Decided(messages, *self._rate_limiter.admit(reported, moment, self._is_awaited_result))
            await self._enqueue(decided)
            self._under_way.append(decided)
        return decided

    async def _enqueue(self, decided: _Decided, *, again: bool = False) -> None:
        decided.batch = await self.decisions.decide(decided.admitted, decided.excess, decided.answers, again=again)
        decided.committing = self._fleet.enqueue_commit(decided.batch)

    async def _load_commands(self, messages: Sequence[IncomingMessage]) -> None:
        """Reads the commands of devices that send results: another controller may have decided them."""
        if self._fleet.cache.is_shared:
            results = [one for one in messages if one.topic.endswith(_RESULT)]
            await self._fleet.load({device_id for _, device_id in device_ids(results) if device_id}, fresh=True)

    def _is_awaited_result(self, device_id: str) -> bool:
        """Whether the device owes the result of a command; of one that is not in memory that is not known yet."""
        device = self._fleet.cache.peek(device_id)
        return device_id not in self._fleet.cache if device is None else bool(device.commands)

    async def _confirm(self, decided: _Decided) -> None:
        if decided not in self._under_way:
            return  # it was answered after an earlier one had been refused
        try:
            if decided.committing is not None:
                await decided.committing
        except ConflictError:
            await self._decide_again()
            return
        self._answer(decided)

    async def _decide_again(self) -> None:
        """Decides the refused batches again, in order, before any new one; a later batch waits for the earlier ones."""
        async with self._deciding:
            under_way = list(self._under_way)
            refusals = [await self._refusal(one) for one in under_way]
            for one, refusal in zip(under_way, refusals, strict=True):
                await self._repeat(one, refusal)
                self._answer(one)

    async def _refusal(self, decided: _Decided) -> ConflictError | None:
        """Waits for the commit; if it was refused, what it left in memory is undone."""
        try:
            if decided.committing is not None:
                await decided.committing
        except ConflictError as conflict:
            self.decisions.undo(decided.admitted)
            await self._fleet.recover(decided.batch, conflict)
            return conflict
        return None

    async def _repeat(self, decided: _Decided, refusal: ConflictError | None) -> None:
        """Decides a batch until it is stored; nothing of it is acknowledged before, and nothing new is decided."""
        attempt = 0
        while refusal is not None:
            attempt += 1
            await pause(attempt, refusal, self._log)
            before = self.counts.copy()
            await self._enqueue(decided, again=True)
            self.counts.clear()
            self.counts.update(before)  # each message counts once
            self.counts["repeated"] += 1
            refusal = await self._refusal(decided)

    def _answer(self, decided: _Decided) -> None:
        batch = decided.batch
        self._under_way.remove(decided)
        self._fleet.publish_committed(batch)
        self._messages.acknowledge(decided.messages)
        for receipt in batch.receipts:
            self._send_receipt(receipt)
        self.counts["confirmed"] += len(decided.messages)

    def _send_receipt(self, receipt: SendReceipt) -> None:
        topic = down(receipt.device_id, DownChannel.RECEIPT)
        if not self._messages.publish_nowait(topic, receipt_json(receipt), expiry_seconds=RECEIPT_EXPIRY):
            self.counts["receipts_not_sent"] += 1
