"""A TCP proxy before PostgreSQL that loses one commit: before it reached the server, or its answer.

`async with CommitLosingProxy(port) as proxy:` listens at `proxy.port`; `lose_next` is armed once.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

_COMMIT: Final = b"COMMIT"
_CHUNK: Final = 64 * 1024


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


class CommitLosingProxy:
    """`lost` is set when a commit was lost."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._mode = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose_next(self, *, after_the_server: bool) -> None:
        """The next commit is lost; with `after_the_server` only its answer."""
        self._mode = "answer" if after_the_server else "commit"

    def lose_none(self) -> None:
        """No commit is lost any more, unless that has begun."""
        self._mode = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await self._relay(reader, writer, from_server, to_server)
            finally:
                to_server.transport.abort()
        except* OSError:
            pass  # one of both is gone
        finally:
            writer.transport.abort()
        self._tasks.discard(task)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        async def answers() -> None:
            with contextlib.suppress(OSError):
                while data := await from_server.read(_CHUNK):
                    writer.write(data)
                    await writer.drain()
            writer.transport.abort()  # as the server did, which stopped: the client must not wait for an answer

        async with asyncio.TaskGroup() as group:
            answering = group.create_task(answers())
            while data := await reader.read(_CHUNK):
                if not self._mode or _COMMIT not in data:
                    to_server.write(data)
                    await to_server.drain()
                    continue
                answering.cancel()
                await asyncio.wait([answering])
                if self._mode == "answer":
                    to_server.write(data)
                    # Of a pipeline more may follow, without which the server does not answer.
                    more = group.create_task(_pass_on(reader, to_server))
                    await from_server.read(_CHUNK)  # it is done
                    more.cancel()
                self._mode = ""
                self.lost.set()
                return
            answering.cancel()
