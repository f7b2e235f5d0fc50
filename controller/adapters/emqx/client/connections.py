"""The connections to one node: each serves one exchange at a time, and is kept only if that ended well.

httpcore's own pool looks at all its connections for each request, which cost a quarter of the time of many
containments, and loses a connection's place when a caller is cancelled twice, as by two time limits that end together.
So each transport has one connection, an exchange is a task that is cancelled once, and what failed is closed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import httpx

from controller.ports.errors import BrokerAnswerError, BrokerLeaseError

T = TypeVar("T")
Answer = tuple[int, str, bytes]  # status, content type, body
_SENT_WITHIN: Final = 2.0  # seconds in which a connection is made and a request is sent, at most
_LOOK: Final = 0.05  # seconds between two looks at a lease that is nearly over


class NodeConnections:
    """Sends requests to one node; `make` returns a transport with one connection. Callers bound their number.

    `lease_left`: seconds for which nobody else changes anything at the broker. This is the one place that all changes
    pass: whoever was halted between its decision and this goes no further.
    """

    def __init__(
        self, make: Callable[[], httpx.AsyncBaseTransport], max_answer_bytes: int, lease_left: Callable[[], float]
    ) -> None:
        self._make = make
        self._lease_left = lease_left
        self._max_answer_bytes = max_answer_bytes
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def send(self, request: httpx.Request, text: str, seconds: float) -> Answer:
        """Sends a request and reads the answer; `text` names it in errors.

        Raises:
            TimeoutError: no answer in time.
            BrokerAnswerError: the answer is too large, or encoded.
            BrokerLeaseError: it is no GET, and the lease is over.
            httpx.HTTPError: the exchange failed.
        """
        if request.method != "GET":
            while (left := self._lease_left()) <= min(seconds, _SENT_WITHIN):
                if left <= 0:
                    raise BrokerLeaseError(f"{text}: not sent, as the lease of this controller is over")
                await asyncio.sleep(_LOOK)
        # The connection that was used last: the others end by themselves when they are no longer needed.
        transport = self._idle.pop() if self._idle else self._make()
        task = self._start(self._exchange(transport, request, text))
        task.add_done_callback(lambda ended: self._put_back(transport, ended))
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            raise TimeoutError
        return task.result()

    async def aclose(self) -> None:
        """Ends what is under way and closes the connections."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:  # of cancelled exchanges, the tasks that close their connections
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in self._idle:
            await transport.aclose()

    async def _exchange(self, transport: httpx.AsyncBaseTransport, request: httpx.Request, text: str) -> Answer:
        response = await transport.handle_async_request(request)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BrokerAnswerError(f"{text}: an encoded answer that was not asked for")
            raw = bytearray()
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                raw += piece
                if len(raw) > self._max_answer_bytes:
                    raise BrokerAnswerError(f"{text}: more than {self._max_answer_bytes} bytes")
            return response.status_code, response.headers.get("content-type", ""), bytes(raw)
        finally:
            await response.aclose()

    def _put_back(self, transport: httpx.AsyncBaseTransport, ended: asyncio.Task[Answer]) -> None:
        # Asking for the exception also marks it as seen: nobody may be waiting for it any more.
        if not ended.cancelled() and ended.exception() is None and not self._is_closed:
            self._idle.append(transport)
        else:
            self._start(transport.aclose())

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
