"""A buffered socket under paho.

paho reads one byte, then one or two, then the rest of a packet, and sends each packet by itself; these system calls
cost more than MQTT itself. Here one large read serves many packets, and everything sent in one iteration of the loop
leaves in one write. paho gets whole packets only, and only those that were not consumed before.
"""

import contextlib
import socket
import ssl
from typing import Final

from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.packets import packet_end
from schemas.broker_address import BrokerAddress

READ_BYTES: Final = 64 * 1024
MAX_READ_BYTES: Final = 1024 * 1024  # per read of a larger packet


class BufferedSocket:
    """A connected socket with buffers on both sides; paho's `SocketLike`.

    Attributes:
        starved: there is no whole packet; the loop's reader reports further data.
        trouble: why reading or writing failed; None after an orderly end.
        ended: the other side closed the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in = b""
        self._at = 0
        self._allowed = 0  # up to where paho may read
        self._out = bytearray()
        self.starved = False
        self.ended = False
        self.trouble: OSError | None = None

    def packet(self) -> tuple[bytes, int, int] | None:
        """Returns the buffer, and start and end of the next whole packet in it; None without one.

        The caller consumes the packet, or allows paho to read it.

        Raises:
            ValueError: the data is not MQTT.
        """
        while True:
            end = packet_end(self._in, self._at)
            if end is not None and end <= len(self._in):
                return self._in, self._at, end
            missing = 1 if end is None else end - len(self._in)
            if not self._fill(missing):
                return None

    def consume(self, end: int) -> None:
        """Marks the packet up to `end` as read."""
        self._at = end

    def allow(self, end: int) -> None:
        """Lets paho read the packet up to `end`."""
        self._allowed = end

    def _fill(self, missing: int) -> bool:
        """Reads once and appends to the unread rest; False when nothing came."""
        try:
            more = self._sock.recv(max(READ_BYTES, min(missing, MAX_READ_BYTES)))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.starved = True
            return False
        except OSError as error:
            self.trouble = error
            return False
        if not more:
            self.ended = True
            return False
        self._in = self._in[self._at :] + more
        self._at = self._allowed = 0
        return True

    def recv(self, buffer_size: int) -> bytes:
        """Returns up to `buffer_size` bytes of an allowed packet, for paho.

        Raises:
            BlockingIOError: no allowed bytes.
            OSError: the connection is broken.
        """
        at = self._at
        if at < self._allowed:
            self._at = min(at + buffer_size, self._allowed)
            return self._in[at : self._at]
        if self.trouble is not None:
            raise self.trouble
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, buffer: bytes | bytearray) -> int:
        """Buffers everything; `flush` sends."""
        self._out += buffer
        return len(buffer)

    @property
    def unsent(self) -> int:
        """Buffered bytes that were not sent."""
        return len(self._out)

    def flush(self) -> bool:
        """Sends the buffer; False when the socket accepts no more for now.

        Raises:
            OSError: the connection is broken.
        """
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self.trouble = self._alert() or error
                raise self.trouble from error
            del self._out[:sent]
        return True

    def _alert(self) -> ssl.SSLError | None:
        """The alert with which the server ended TLS, which says more than the failed write."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return None
        try:
            self._sock.recv(READ_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            return None
        except ssl.SSLError as error:
            return error
        except OSError:
            return None
        return None

    def close(self) -> None:
        """Sends what the socket accepts (paho closes right after its DISCONNECT), then closes."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self.flush()
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)


class HeldTlsContext:
    """The TLS context of the options' files, held in memory.

    A reconnect opens a file only where one changed. Files that cannot be used, because a renewal has written a part of
    them or the process has no descriptor left, leave the context in use as it is.
    """

    def __init__(self, options: MqttOptions) -> None:
        self._options = options
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[int, ...] = ()

    def current(self) -> ssl.SSLContext:
        """Returns the context for the next connection.

        Raises:
            OSError: no files could be used yet.
        """
        options = self._options
        try:
            stats = [path.stat() for path in (options.ca, options.certificate, options.key) if path is not None]
            seen = tuple(value for one in stats for value in (one.st_ino, one.st_mtime_ns, one.st_size))
            if self._context is None or seen != self._seen:
                self._context, self._seen = tls_context(options), seen
        except OSError:
            if self._context is None:
                raise
        return self._context


def open_wire(server: BrokerAddress, options: MqttOptions, tls: HeldTlsContext) -> BufferedSocket:
    """Resolves the name, connects, and does the TLS handshake; blocks, so it runs in a thread.

    Raises:
        OSError: no connection, no trust, or a key file that cannot be read.
    """
    context = tls.current() if server.tls else None
    sock = socket.create_connection((server.host, server.port), timeout=options.connect_timeout_seconds)
    try:
        # Data is already gathered in the buffer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            # An end without TLS's own farewell is an error: a server that refuses a certificate may end so.
            sock = context.wrap_socket(sock, server_hostname=server.host, suppress_ragged_eofs=False)
        return BufferedSocket(sock)
    except BaseException:
        sock.close()
        raise


def tls_context(options: MqttOptions) -> ssl.SSLContext:
    """Returns a context from the files as they are now.

    Raises:
        OSError: a file is missing or holds no certificate or key.
    """
    for path in (options.ca, options.certificate, options.key):
        if path is not None:
            with path.open("rb"):  # OpenSSL's own error does not name the file
                pass
    context = ssl.create_default_context(cafile=options.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.certificate is not None:
        # Without the callable OpenSSL would ask for the passphrase of an encrypted key at the terminal.
        context.load_cert_chain(options.certificate, options.key, password=lambda: b"")
    return context
