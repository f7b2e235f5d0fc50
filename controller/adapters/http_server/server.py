"""A uvicorn server that accepts connections itself, so that clients are counted before they cost anything.

uvicorn bounds requests, not connections, and has no time limit for a client that never sends its request. A client in
the TLS handshake is not even known to it. Here each connection is admitted first, then watched once a second.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from controller.adapters.http_server.admission import AddressCounts, ConnectionLimits
from controller.adapters.http_server.protocol import (
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    BoundedProtocol,
    Connection,
    Phase,
)

BACKLOG: Final = 1024  # connections that the kernel holds
SOCKET_BUFFER: Final = 128 * 1024  # bytes each way; the kernel's own limit of 4 MiB and more counts as our memory
ACCEPTS_AT_ONCE: Final = 32  # in one iteration of the loop
NEW_PER_SECOND: Final = 200  # admitted connections: a TLS handshake takes about 1 ms of the loop
_REST_SECONDS: Final = 0.1  # without accepting, when the second's share is used up or a descriptor is missing
_TICKS: Final = 10  # uvicorn ticks ten times a second
_LOG_EVERY: Final = 60  # seconds
_WAITS_FOR_CLIENT: Final = frozenset({Phase.HANDSHAKE, Phase.HEADER, Phase.BODY})

_logger = logging.getLogger("controller.http")


class BoundedServer(uvicorn.Server):
    """Serves one listening socket within `limits`; leaves signals to the process. `name` appears in the log."""

    def __init__(self, config: uvicorn.Config, limits: ConnectionLimits, name: str) -> None:
        super().__init__(config)
        self.limits = limits
        self._name = name
        self._addresses = AddressCounts(limits)
        self._connections: set[Connection] = set()
        self._refused: Counter[str] = Counter()  # reasons, since the last line of the log
        self._admitted = 0  # in this second
        self._seconds = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @property
    def open(self) -> int:
        """Connections now, those in the handshake included."""
        return len(self._connections)

    def watched(self) -> tuple[Connection, ...]:
        """The open connections."""
        return tuple(self._connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts accepting; uvicorn's own way has no place to count connections."""
        await self.lifespan.startup()
        acceptors: list[Any] = [_Acceptor(each, self._may_accept, self._admit) for each in sockets or ()]
        self.servers = acceptors  # uvicorn only closes them
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self._admitted = 0
            self._addresses.begin_second()
            self.end_overdue(asyncio.get_running_loop().time())
            self._report()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self.watched():
            if connection.phase is Phase.HANDSHAKE:
                connection.abort()
        await super().shutdown(sockets)
        for connection in self.watched():
            connection.abort()

    def _may_accept(self) -> bool:
        return self._admitted < NEW_PER_SECOND

    def _admit(self, sock: socket.socket, address: str) -> None:
        if self._addresses.is_too_fast(address):
            # Closed at once and not counted: one address that comes and goes uses up nothing of the others' share.
            self._refused["too many new connections of one address"] += 1
            sock.close()
            return
        if not self._addresses.take(address):
            self._refused["too many connections of one address"] += 1
            sock.close()
            return
        if len(self._connections) >= self.limits.total and not self._make_room():
            self._refused["too many connections"] += 1
            self._addresses.release(address)
            sock.close()
            return
        self._admitted += 1
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        connection = Connection(sock, address, loop.time())
        self._connections.add(connection)
        connection.handshake = loop.create_task(self._open(connection, sock))
        connection.handshake.add_done_callback(lambda task: self._opened(connection, task))

    async def _open(self, connection: Connection, sock: socket.socket) -> None:
        made = BoundedProtocol(self.config, self.server_state, self.lifespan.state, lambda: self._release(connection))
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        if tls is None:
            connection.protocol = made
            await loop.connect_accepted_socket(lambda: made, sock)
            return
        try:
            await loop.connect_accepted_socket(
                lambda: made, sock, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=CLOSE_SECONDS
            )
        except OSError as e:  # TimeoutError and SSLError among them
            traceback.clear_frames(e.__traceback__)  # they refer to the error, which refers to them
            raise
        connection.protocol = made

    def _opened(self, connection: Connection, task: asyncio.Task[None]) -> None:
        connection.handshake = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._release(connection)
        if error is not None and not isinstance(error, OSError | ssl.SSLError | TimeoutError):
            _logger.error("a connection failed", exc_info=error)

    def _release(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._addresses.release(connection.address)

    def _make_room(self) -> bool:
        """Ends the connection that has kept the server waiting longest; False where none does.

        An honest request is done within milliseconds, so it is the last that others displace.
        """
        waiting = [each for each in self._connections if each.phase in _WAITS_FOR_CLIENT]
        if not waiting:
            return False
        self._end(min(waiting, key=lambda each: each.since), "displaced by a newer connection")
        return True

    def end_overdue(self, now: float) -> None:
        """Ends the connections whose client takes too long; `now` is the loop's time in seconds."""
        for connection in self.watched():
            reason = connection.overdue(now)
            if reason:
                self._end(connection, reason)

    def _end(self, connection: Connection, reason: str) -> None:
        self._refused[reason] += 1
        self._release(connection)
        connection.abort()

    def _report(self) -> None:
        self._seconds += 1
        if self._seconds >= _LOG_EVERY and self._refused:
            _logger.warning(
                "connections were refused or ended: %s: %d open, %s",
                self._name,
                self.open,
                ", ".join(f"{count} x {reason}" for reason, count in sorted(self._refused.items())),
            )
            self._refused.clear()
            self._seconds = 0


class _Acceptor:
    """Accepts on one socket; `close` and `wait_closed` are what uvicorn calls of an `asyncio.Server`."""

    def __init__(
        self,
        listener: socket.socket,
        may_accept: Callable[[], bool],
        admit: Callable[[socket.socket, str], None],
    ) -> None:
        self._listener = listener
        self._may_accept = may_accept
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # accepted sockets inherit them
            listener.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        listener.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: connections belong to the server."""

    def _resume(self) -> None:
        self._resting = None
        self._loop.add_reader(self._listener, self._on_readable)

    def _rest(self) -> None:
        self._loop.remove_reader(self._listener)
        self._resting = self._loop.call_later(_REST_SECONDS, self._resume)

    def _on_readable(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not self._may_accept():
                self._rest()
                return
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:  # no descriptor or no memory: the bounds should keep it from happening
                _logger.warning("cannot accept a connection: %s", e.strerror)
                self._rest()
                return
            self._admit(sock, str(address[0]))
