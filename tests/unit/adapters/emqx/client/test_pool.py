"""Time limits and cancelled callers cost a pool no connection."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from controller.adapters.emqx.client.pool import NodePool

REQUEST = httpx.Request("GET", "http://node/api/v5/cluster")


class _Body(httpx.AsyncByteStream):
    def __init__(self, text: bytes) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._text


class _Transport(httpx.AsyncBaseTransport):
    """Answers after `seconds`; as httpcore, it gives a place back only if its clean-up is not cancelled."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None, body: bytes = b"{}") -> None:
        self.seconds, self.error, self.body = seconds, error, body
        self.lost, self.ended, self.closed = 0, 0, False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        del request
        if self.error is not None:
            raise self.error
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.lost += 1
                raise
            self.ended += 1
            raise
        return httpx.Response(200, headers={"content-type": "application/json"}, stream=_Body(self.body))

    async def aclose(self) -> None:
        self.closed = True


def pool_of(*transports: _Transport) -> NodePool:
    left = list(transports)
    return NodePool(lambda: left.pop(0), max_answer_bytes=10, close_after=0.01)


async def test_an_answer_in_time() -> None:
    assert await pool_of(_Transport()).send(REQUEST, "GET /cluster", 5.0) == (200, "application/json", b"{}")


async def test_limits_that_end_together_cancel_the_exchange_once() -> None:
    transport = _Transport(60.0)
    pool = pool_of(transport)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):  # of the call, around the limit of the attempt
            await pool.send(REQUEST, "GET /cluster", 0.03)
    await asyncio.sleep(0.2)
    assert (transport.lost, transport.ended) == (0, 1)


async def test_a_caller_that_is_cancelled_twice_cancels_the_exchange_once() -> None:
    transport = _Transport(60.0)
    caller = asyncio.get_running_loop().create_task(pool_of(transport).send(REQUEST, "GET /cluster", 60.0))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.sleep(0.2)
    assert caller.cancelled()
    assert (transport.lost, transport.ended) == (0, 1)


async def test_a_pool_without_a_free_place_is_replaced_and_closed() -> None:
    full, fresh = _Transport(error=httpx.PoolTimeout("no place")), _Transport()
    pool = pool_of(full, fresh)
    with pytest.raises(httpx.PoolTimeout):
        await pool.send(REQUEST, "GET /cluster", 5.0)
    assert (await pool.send(REQUEST, "GET /cluster", 5.0))[0] == 200
    await asyncio.sleep(0.1)
    assert (full.closed, fresh.closed) == (True, False)
    await pool.aclose()
    assert fresh.closed
