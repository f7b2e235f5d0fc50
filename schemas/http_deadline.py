"""HTTP connections whose answers have a time limit in all, however slowly their bytes arrive.

The timeout of a socket holds for each read: a server that sends a byte now and then, or `100 Continue` without end,
holds an `http.client` for ever. Here an answer, header and body, has `ANSWER_TIMEOUTS` times the connection's timeout.
"""

import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ANSWER_TIMEOUTS: Final = 3


class _Answer(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._reads = _LimitedReads(sock)
        unlimited, self.fp = self.fp, io.BufferedReader(self._reads)
        unlimited.close()


class HeaderLimitedAnswer(_Answer):
    """An answer whose header has the time limit; its body may be long, and only each read of it has a timeout."""

    def begin(self) -> None:
        super().begin()
        self._reads.lift_limit()


class HttpConnection(http.client.HTTPConnection):
    """Without TLS. Reading an answer raises TimeoutError after the time limit."""

    response_class = _Answer


class HttpsConnection(http.client.HTTPSConnection):
    """With TLS. Reading an answer raises TimeoutError after the time limit."""

    response_class = _Answer


class _LimitedReads(io.RawIOBase):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._step = sock.gettimeout()
        self._until = None if self._step is None else time.monotonic() + self._step * ANSWER_TIMEOUTS

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
