"""The socket as paho sees it: reads and writes gathered, because a system call for each byte costs more than MQTT does.

paho asks for one byte, then one or two, then the rest of a packet, and sends each packet by itself. This stands between
it and the socket: one large read serves many packets, and what is sent in one turn of the loop leaves in one write.
It knows where packets end, so that paho is given whole ones only, and only those that nobody took before it.
"""

import contextlib
import socket
import ssl
from typing import Final

from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.packets import packet_end
from schemas.broker_address import BrokerAddress

READ_BYTES: Final = 64 * 1024
MAX_READ_BYTES: Final = 1024 * 1024  # asked for at once, of a packet that is larger


class BufferedSocket:
    """A connected socket with buffers on both sides; paho's `SocketLike`.

    Attributes:
        starved: there is no whole packet; the loop's reader will tell when there is more.
        trouble: why reading or writing failed, in the words of the system; None after an orderly end.
        ended: the other side closed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in = b""
        self._at = 0
        self._granted = 0  # up to where paho may read
        self._out = bytearray()
        self.starved = False
        self.ended = False
        self.trouble: OSError | None = None

    def packet(self) -> tuple[bytes, int, int] | None:
        """The buffer, where the next whole packet begins in it, and where it ends; None when there is none.

        Its caller says `took`, or has paho read it after `grant`.

        Raises:
            ValueError: what comes is not MQTT.
        """
        while True:
            end = packet_end(self._in, self._at)
            if end is not None and end <= len(self._in):
                return self._in, self._at, end
            missing = 1 if end is None else end - len(self._in)
            if not self._fill(missing):
                return None

    def took(self, end: int) -> None:
        """The packet up to `end` was read."""
        self._at = end

    def grant(self, end: int) -> None:
        """The packet up to `end` is for paho."""
        self._granted = end

    def _fill(self, missing: int) -> bool:
        """Read once, behind what is left; False when nothing came."""
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
        self._at = self._granted = 0
        return True

    def recv(self, buffer_size: int) -> bytes:
        """Up to that many bytes of a packet that was granted; for paho.

        Raises:
            BlockingIOError: nothing there now.
            OSError: the connection is broken.
        """
        at = self._at
        if at < self._granted:
            self._at = min(at + buffer_size, self._granted)
            return self._in[at : self._at]
        if self.trouble is not None:
            raise self.trouble
        if self.ended:
            return b""
        raise BlockingIOError

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of it; `flush` sends it."""
        self._out += buffer
        return len(buffer)

    @property
    def unsent(self) -> int:
        """Bytes that are gathered and not sent."""
        return len(self._out)

    def flush(self) -> bool:
        """Send what is gathered; False when the socket takes no more for now.

        Raises:
            OSError: the connection is broken.
        """
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self.trouble = error
                raise
            del self._out[:sent]
        return True

    def close(self) -> None:
        """Send what the socket still takes (paho closes right behind its DISCONNECT), then close."""
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self.flush()
        self._sock.close()

    def fileno(self) -> int:
        """The socket's number, for the loop."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As the socket's."""
        self._sock.setblocking(flag)


def open_wire(server: BrokerAddress, options: MqttOptions) -> BufferedSocket:
    """Resolve, connect and shake hands; blocks, so it runs in a thread.

    Raises:
        OSError: no connection, no trust, or a key file that cannot be read.
    """
    context = tls_context(options) if server.tls else None
    sock = socket.create_connection((server.host, server.port), timeout=options.connect_timeout_seconds)
    try:
        # What belongs together is gathered here already; waiting for more would only delay it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return BufferedSocket(sock if context is None else context.wrap_socket(sock, server_hostname=server.host))
    except BaseException:
        sock.close()
        raise


def tls_context(options: MqttOptions) -> ssl.SSLContext:
    """Trust and identity from the files as they are now: renewed certificates count at the next connection.

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
        # Without the callable a protected key would make OpenSSL ask at the terminal.
        context.load_cert_chain(options.certificate, options.key, password=lambda: b"")
    return context
