"""The connections to one node: a time limit, or a cancelled caller, never costs one for good.

httpcore cleans up when it is cancelled, and loses the place of the connection when it is cancelled again meanwhile, as
by two time limits that end together once the event loop is free again. So an exchange is a task that is cancelled once,
and a pool without a free place is replaced.
"""

import asyncio
from collections.abc import Callable

import httpx

from controller.ports.errors import BrokerAnswerError

Answer = tuple[int, str, bytes]  # status, content type, body


class NodePool:
    """Sends requests to one node; `make` returns a pool of connections with at least as many places as callers."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport], max_answer_bytes: int, close_after: float) -> None:
        """`close_after`: seconds after which what a replaced pool still does is ended."""
        self._make = make
        self._max_answer_bytes = max_answer_bytes
        self._close_after = close_after
        self._transport = make()
        self._tasks: set[asyncio.Task[Answer] | asyncio.Task[None]] = set()

    async def send(self, request: httpx.Request, text: str, seconds: float) -> Answer:
        """Sends a request and reads the answer; `text` names it in errors.

        Raises:
            TimeoutError: no answer in time.
            BrokerAnswerError: the answer is too large, or encoded.
            httpx.HTTPError: the exchange failed.
        """
        transport = self._transport
        task = asyncio.get_running_loop().create_task(self._exchange(transport, request, text))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            raise TimeoutError
        try:
            return task.result()
        except httpx.PoolTimeout:
            self._replace(transport)
            raise

    async def aclose(self) -> None:
        """Ends what is under way and closes the connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.aclose()

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

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of an exchange that nobody waits for any more

    def _replace(self, transport: httpx.AsyncBaseTransport) -> None:
        if transport is not self._transport:
            return
        self._transport = self._make()
        closing = asyncio.get_running_loop().create_task(self._close_later(transport))
        self._tasks.add(closing)
        closing.add_done_callback(self._tasks.discard)

    async def _close_later(self, transport: httpx.AsyncBaseTransport) -> None:
        try:
            await asyncio.sleep(self._close_after)
        finally:
            await transport.aclose()
