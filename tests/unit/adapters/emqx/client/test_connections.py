"""What becomes of the connections to a node: kept, closed, cancelled once."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from controller.adapters.emqx.client.connections import NodeConnections
from controller.ports.errors import BrokerAnswerError, BrokerLeaseError

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


def node_of(*transports: _Transport, lease_left: Callable[[], float] = lambda: math.inf) -> NodeConnections:
    left = list(transports)
    return NodeConnections(lambda: left.pop(0), 10, lease_left)


async def test_an_answer_in_time() -> None:
    assert await node_of(_Transport()).send(REQUEST, "GET /cluster", 5.0) == (200, "application/json", b"{}")


async def test_no_change_is_sent_when_the_lease_is_over_or_before_it_is_renewed() -> None:
    left = iter([0.0, 0.01, 0.01, 3.0])
    node = node_of(_Transport(), lease_left=lambda: next(left))
    assert await node.send(REQUEST, "GET /cluster", 5.0)
    change = httpx.Request("PUT", "http://node/api/v5/rules")
    with pytest.raises(BrokerLeaseError, match="PUT /rules: not sent"):
        await node.send(change, "PUT /rules", 5.0)
    assert await node.send(change, "PUT /rules", 5.0)
    assert next(left, None) is None


async def test_limits_that_end_together_cancel_the_exchange_once() -> None:
    transport = _Transport(60.0)
    node = node_of(transport)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):  # of the call, around the limit of the attempt
            await node.send(REQUEST, "GET /cluster", 0.03)
    await asyncio.sleep(0.2)
    assert (transport.lost, transport.ended) == (0, 1)


async def test_a_caller_that_is_cancelled_twice_cancels_the_exchange_once() -> None:
    transport = _Transport(60.0)
    caller = asyncio.get_running_loop().create_task(node_of(transport).send(REQUEST, "GET /cluster", 60.0))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.sleep(0.2)
    assert caller.cancelled()
    assert (transport.lost, transport.ended) == (0, 1)


async def test_a_connection_serves_one_exchange_at_a_time_and_is_kept() -> None:
    first, second = _Transport(0.02), _Transport(0.02)
    node = node_of(first, second)
    await asyncio.gather(*(node.send(REQUEST, "GET /cluster", 5.0) for _ in range(2)))
    await node.send(REQUEST, "GET /cluster", 5.0)  # a third transport does not exist
    assert [one.closed for one in (first, second)] == [False, False]
    await node.aclose()
    assert [one.closed for one in (first, second)] == [True, True]


@pytest.mark.parametrize(
    "broken", [_Transport(error=httpx.ReadError("reset")), _Transport(body=b"{" * 11), _Transport(60.0)]
)
async def test_after_a_failed_exchange_the_connection_is_closed(broken: _Transport) -> None:
    fresh = _Transport()
    node = node_of(broken, fresh)
    with pytest.raises((httpx.ReadError, BrokerAnswerError, TimeoutError)):
        await node.send(REQUEST, "GET /cluster", 0.05)
    assert (await node.send(REQUEST, "GET /cluster", 5.0))[0] == 200
    await asyncio.sleep(0.1)
    assert (broken.closed, fresh.closed) == (True, False)
    await node.aclose()
    assert fresh.closed


async def test_closing_ends_what_is_under_way() -> None:
    transport = _Transport(60.0)
    node = node_of(transport)
    caller = asyncio.get_running_loop().create_task(node.send(REQUEST, "GET /cluster", 60.0))
    await asyncio.sleep(0.01)
    await node.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (transport.ended, transport.closed) == (1, True)
