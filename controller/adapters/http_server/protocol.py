"""One HTTP connection: which phase it is in, and whether it takes too long."""

import asyncio
import fcntl
import socket
import struct
import termios
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HANDSHAKE_SECONDS: Final = 10.0  # TLS, from the accepted connection on
HEADER_SECONDS: Final = 10.0  # from the connection, or from the last response, to a whole header
BODY_SECONDS: Final = 30.0  # for a whole body
CLOSE_SECONDS: Final = 5.0  # for the client's part in closing TLS
ABORT: Final = "cordon.abort"  # the extension of ASGI: a callable without arguments
MIN_RATE: Final = 512  # bytes per second that a client has to take; the agent ends slower downloads by itself
RATE_WINDOW: Final = 20.0  # seconds over which the rate is measured
_ACKED: Final = struct.Struct("=120xQ")  # `tcpi_bytes_acked` in Linux's struct tcp_info
_QUEUED: Final = struct.Struct("i")


def _nothing() -> None:
    """What `closed` is once it was called."""


def _abortable(app: Any, protocol: "weakref.ref[BoundedProtocol]") -> Any:
    """Returns the application with an extension of ASGI that closes the connection of a request, without an error."""

    def abort() -> None:
        alive = protocol()
        if alive is not None and alive.transport is not None:
            alive.transport.abort()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {**scope.get("extensions", {}), ABORT: abort}
        await app(scope, receive, send)

    return serve


class Phase(Enum):
    """What a connection waits for."""

    HANDSHAKE = "TLS handshake"
    HEADER = "header"
    BODY = "body"
    RESPONSE = "response"


_LIMITS: Final = {Phase.HANDSHAKE: HANDSHAKE_SECONDS, Phase.HEADER: HEADER_SECONDS, Phase.BODY: BODY_SECONDS}


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol on h11, which tells its phase; `closed` is called when the connection is over."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], closed: Callable[[], None]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.app = _abortable(self.app, weakref.ref(self))
        self._closed = closed
        self.responses = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does it only where nothing failed
        self._closed()
        # These objects refer to each other, and an exception of the application may refer to the request. What is not
        # separated stays, with its buffers for TLS, until a garbage collection, which is rare here.
        self._closed = _nothing
        if self.cycle is not None:  # uses neither any more: it is disconnected, or its response is complete
            self.cycle.transport = None  # type: ignore[assignment]
            self.cycle.flow = FlowControl(None)  # type: ignore[arg-type]
        self.cycle = self.transport = self.flow = None  # type: ignore[assignment]  # as uvicorn begins

    def on_response_complete(self) -> None:
        self.responses += 1
        super().on_response_complete()

    @property
    def phase(self) -> Phase:
        state = self.conn.their_state
        if state is h11.IDLE:
            # The response may be complete for the application, and still wait for the client to take it.
            return Phase.RESPONSE if self.has_buffered else Phase.HEADER
        return Phase.BODY if state is h11.SEND_BODY else Phase.RESPONSE

    @property
    def has_buffered(self) -> bool:
        """Whether the process itself holds a part of a response."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0


class Connection:
    """An accepted connection from its TLS handshake on. Times are the loop's, in seconds."""

    def __init__(self, sock: socket.socket, address: str, now: float) -> None:
        self.address = address
        self.protocol: BoundedProtocol | None = None
        self.handshake: asyncio.Task[None] | None = None
        self._sock = sock
        self._reached: tuple[Phase, int] = (Phase.HANDSHAKE, 0)
        self.since = now  # when it reached the phase; exact to one look of the server
        self._measured: tuple[float, int] | None = None  # time, bytes that the client has acknowledged

    @property
    def phase(self) -> Phase:
        return Phase.HANDSHAKE if self.protocol is None else self.protocol.phase

    def overdue(self, now: float) -> str:
        """Returns why it is to be ended, or nothing; called once a second."""
        reached = (self.phase, 0 if self.protocol is None else self.protocol.responses)
        if reached != self._reached:
            self._reached, self.since = reached, now
        limit = _LIMITS.get(reached[0])
        if limit is not None and now - self.since > limit:
            return f"no {reached[0].value} within {limit:g} s"
        return "takes less than the minimum rate" if self._is_too_slow(now) else ""

    def abort(self) -> None:
        """Closes at once, without waiting for the client."""
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abort()
        elif self.handshake is not None:
            self.handshake.cancel()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the client to take it."""
        if self.protocol is None or self._sock.fileno() < 0:
            return False
        if self.protocol.has_buffered:
            return True
        (queued,) = _QUEUED.unpack(fcntl.ioctl(self._sock, termios.TIOCOUTQ, _QUEUED.pack(0)))
        return bool(queued)

    @property
    def acknowledged(self) -> int:
        """The bytes that the client's machine has taken."""
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(_ACKED.unpack_from(info)[0])

    def _is_too_slow(self, now: float) -> bool:
        if not self.has_unsent:
            self._measured = None
            return False
        taken = self.acknowledged
        if self._measured is None:
            self._measured = now, taken
            return False
        began, before = self._measured
        if now - began < RATE_WINDOW:
            return False
        self._measured = now, taken
        return taken - before < MIN_RATE * (now - began)
