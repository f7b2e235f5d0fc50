"""Requests that concurrent plans share: reads that began after the question, batches, an outcome for each caller."""

import asyncio
import json
from collections.abc import Sequence

import httpx
import pytest

from controller.adapters.emqx.client.coalescing import (
    MAX_BATCH,
    BatchingRuleWriter,
    CoalescedRequests,
    SingleFlightRead,
)
from controller.adapters.emqx.containment.context import ProofRecorder
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import restriction
from controller.ports.errors import BrokerError, BrokerRefusedError
from tests.support.scripted_emqx import ScriptedEmqx, error


class Reader:
    """Counts its reads; each waits until it may end."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.fails: list[BrokerError] = []

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.fails:
            raise self.fails.pop(0)
        return number


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _together(shared: SingleFlightRead[int], reader: Reader, many: int) -> Sequence[object]:
    first = asyncio.get_running_loop().create_task(shared.get())
    await _settle()
    rest = [asyncio.get_running_loop().create_task(shared.get()) for _ in range(many)]
    await _settle()
    reader.may_end.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)


async def test_concurrent_readers_share_the_next_read() -> None:
    reader = Reader()
    assert await _together(SingleFlightRead(reader.read), reader, 50) == [1, *[2] * 50]
    assert reader.begun == 2


async def test_a_failed_read_fails_its_waiters_and_no_later_reader() -> None:
    reader = Reader()
    shared = SingleFlightRead(reader.read)
    reader.fails = [BrokerError("one"), BrokerError("two")]
    found = await _together(shared, reader, 3)
    assert [str(each) for each in found] == ["one", "two", "two", "two"]
    assert await shared.get() == 3


async def test_a_cancelled_reader_does_not_affect_the_others() -> None:
    reader = Reader()
    shared = SingleFlightRead(reader.read)
    leader = asyncio.get_running_loop().create_task(shared.get())
    await _settle()
    other = asyncio.get_running_loop().create_task(shared.get())
    await _settle()
    leader.cancel()
    reader.may_end.set()
    assert await other == 2


def _bulk(cluster: ScriptedEmqx, refusal: httpx.Response | None = None) -> list[int]:
    """Answers bulk writes; returns the sizes of the batches."""
    sizes: list[int] = []

    def answer(_base: str, method: str, path: str) -> httpx.Response | None:
        if method == "POST" and path.endswith("/rules/clients"):
            return refusal or httpx.Response(204)
        return None

    real = cluster.answer

    async def counting(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.001)  # as an answer over a socket would take
        if request.method == "POST" and request.url.path.endswith("/rules/clients"):
            sizes.append(len(json.loads(request.content)))
        return real(request)

    cluster.answer = counting  # type: ignore[method-assign,assignment]  # the transport takes both
    cluster.before.append(answer)
    return sizes


async def _write(writer: BatchingRuleWriter, many: int) -> list[ProofRecorder]:
    records = [ProofRecorder() for _ in range(many)]
    await asyncio.gather(
        *(writer.write(Subject.client(f"d{n}"), restriction(f"d{n}"), records[n].add) for n in range(many))
    )
    return records


async def test_concurrent_writes_are_batched_and_a_single_one_is_not() -> None:
    cluster = ScriptedEmqx()
    sizes = _bulk(cluster)
    writer = BatchingRuleWriter(cluster.broker().api)
    (alone,) = await _write(writer, 1)
    assert [step.call.split()[0] for step in alone.steps] == ["PUT"]
    records = await _write(writer, 250)
    assert sum(sizes) in (249, 250)
    assert max(sizes) <= MAX_BATCH
    assert len(sizes) <= 4
    # Each writer has the step of the batch in its record.
    for record in records[1:]:
        assert record.steps
        assert record.steps[0].answer == "204"


async def test_a_conflicting_batch_is_written_one_by_one() -> None:
    cluster = ScriptedEmqx()
    _bulk(cluster, error(409, "ALREADY_EXISTS"))
    await _write(BatchingRuleWriter(cluster.broker().api), 20)
    assert cluster.made("PUT") == 20


async def test_a_failed_batch_fails_each_writer() -> None:
    cluster = ScriptedEmqx()
    _bulk(cluster, error(403, "UNAUTHORIZED_ROLE"))
    writer = BatchingRuleWriter(cluster.broker().api)
    asked = [writer.write(Subject.client(f"d{n}"), (), ProofRecorder().add) for n in range(30)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, BrokerRefusedError) for each in found) >= 29


def _sessions(cluster: ScriptedEmqx, there: set[str], *, knows_several: bool = True) -> list[int]:
    """Answers reads of several ids; returns the sizes of the batches."""
    sizes: list[int] = []
    real = cluster.answer

    async def listing(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.001)
        ids = request.url.params.get_list("clientid")
        if not ids:
            who = request.url.path.rpartition("/")[2]
            cluster.session = "connected" if who in there else "none"
            return real(request)
        sizes.append(len(ids))
        shown = [who for who in (ids if knows_several else ids[-1:]) if who in there]
        rows = [{"clientid": who, "connected": True} for who in shown]
        return httpx.Response(200, json={"data": rows, "meta": {"count": len(rows)}})

    cluster.answer = listing  # type: ignore[method-assign,assignment]
    return sizes


@pytest.mark.parametrize("knows_several", [True, False])
async def test_a_batched_read_proves_absence_only_where_the_broker_supports_it(
    knows_several: bool,
) -> None:
    cluster, there = ScriptedEmqx(), {f"d{n}" for n in range(0, 250, 2)}
    sizes = _sessions(cluster, there, knows_several=knows_several)
    shared = CoalescedRequests(cluster.broker().api)
    reader, record = shared.clients_at[""], ProofRecorder()
    found = await asyncio.gather(*(reader.get(f"d{n}", record.add) for n in range(250)))
    assert [row is not None for row in found] == [n % 2 == 0 for n in range(250)]
    assert max(sizes) <= MAX_BATCH
    alone = cluster.made("GET /clients/d")
    # The first read goes alone; without support for several ids, each id that was left out is read alone.
    assert alone == 1 if knows_several else alone > 200
    assert any(step.what == "read clients" for step in record.steps)


async def test_a_cancelled_writer_is_not_written() -> None:
    cluster = ScriptedEmqx()
    sizes = _bulk(cluster)
    writer = BatchingRuleWriter(cluster.broker().api)
    tasks = [
        asyncio.get_running_loop().create_task(writer.write(Subject.client(f"d{n}"), (), ProofRecorder().add))
        for n in range(10)
    ]
    await asyncio.sleep(0)
    for task in tasks[5:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(sizes) <= 5
    with pytest.raises(asyncio.CancelledError):
        tasks[-1].result()
