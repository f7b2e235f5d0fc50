"""HTTP connections with a time limit in all, however many addresses a name has and however slowly bytes arrive.

The timeout of a socket holds for each attempt to connect and for each read: a name with many silent addresses, a server
that sends a byte now and then, or `100 Continue` without end, holds an `http.client` for as long as it likes. Here
connecting has the connection's timeout, and everything up to the end of the answer `ANSWER_TIMEOUTS` times as long.
Only the system's resolver has its own limits.
"""

import http.client
import io
import socket
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ANSWER_TIMEOUTS: Final = 3
_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class _Answer(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        until: float | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._reads = _LimitedReads(sock, until)
        unlimited, self.fp = self.fp, io.BufferedReader(self._reads)
        unlimited.close()


class HeaderLimitedAnswer(_Answer):
    """An answer whose header has the time limit; its body may be long, and only each read of it has a timeout."""

    def begin(self) -> None:
        super().begin()
        self._reads.lift_limit()


class _LimitedConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        until = time.monotonic() + ANSWER_TIMEOUTS * (self.timeout or 0.0)
        # A partial of the class: `http.client` only calls it.
        self.response_class = partial(_Answer, until=until)  # type: ignore[assignment]
        self._create_connection = self._connect_to_any  # what the class of the library connects with
        super().connect()

    def addresses(self, host: str, port: int) -> list[str]:
        """Returns the addresses to try."""
        return resolve(host, port)

    def _connect_to_any(self, address: tuple[str, int], timeout: float, *_source: object) -> socket.socket:
        host, port = address
        return connect_to_any(self.addresses(host, port), port, timeout)


class HttpConnection(_LimitedConnection):
    """Without TLS. Connecting and reading raise TimeoutError after the time limit."""


class HttpsConnection(http.client.HTTPSConnection, _LimitedConnection):
    """With TLS, in the same time."""


def resolve(host: str, port: int) -> list[str]:
    """Returns all addresses of a name, each once and in the resolver's order, with their zone."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(socket.getnameinfo(each[4], _NUMERIC)[0] for each in found))


def connect_to_any(addresses: Iterable[str], port: int, timeout: float) -> socket.socket:
    """Returns a connection to the first address that takes it; `timeout`, in seconds, is for all of them together.

    Raises:
        OSError: none takes it; TimeoutError after the time limit.
    """
    until, failure = time.monotonic() + timeout, OSError("the name has no address")
    for address in addresses:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no connection within {timeout:g} s")
        try:
            sock = socket.create_connection((address, port), timeout=left)
        except OSError as e:
            failure = e
            continue
        sock.settimeout(timeout)
        return sock
    raise failure


class _LimitedReads(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float | None) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._step = sock.gettimeout()
        if until is None and self._step is not None:
            until = time.monotonic() + self._step * ANSWER_TIMEOUTS
        self._until = until

    def lift_limit(self) -> None:
        self._until = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        if self._step is not None:
            left = self._step if self._until is None else self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no whole answer within {self._step * ANSWER_TIMEOUTS:g} s")
            self._sock.settimeout(min(self._step, left))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
