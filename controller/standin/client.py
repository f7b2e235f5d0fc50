"""A client, as EMQX's process for it: identity, session, authorization cache, will, counters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller.standin.authz import AuthzCache, ClientIdentity
from controller.standin.messages import Delivery, Message
from controller.standin.options import EXPIRY_NEVER
from controller.standin.session import OutgoingPacket, Session


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancels the call."""


class Scheduler(Protocol):
    """Schedules calls; the broker's logic uses the event loop through it alone."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Schedules a call after `delay` seconds."""


class ClientConnection(Protocol):
    """The connection of a client, as the broker uses it."""

    def send_messages(self, out: Sequence[OutgoingPacket]) -> None:
        """Sends messages to the client."""

    def finish(self, reason_code: int | None) -> None:
        """Closes the connection, on MQTT 5 with a DISCONNECT of this reason; does not notify the channel."""

    def abort(self) -> None:
        """Closes the socket immediately."""


@dataclass(slots=True)
class ClientCounters:
    """The counters in a client row."""

    recv_oct: int = 0
    recv_pkt: int = 0
    recv_msg: list[int] = field(default_factory=lambda: [0, 0, 0])
    recv_dropped: int = 0
    send_oct: int = 0
    send_pkt: int = 0
    send_msg: list[int] = field(default_factory=lambda: [0, 0, 0])
    send_too_large: int = 0


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """The node and listener of a connection, and the address of the client."""

    node: str
    listener: str
    sockhost: str
    sockport: int
    peerhost: str
    peerport: int

    @property
    def peername(self) -> str:
        """Address and port of the client."""
        return f"{self.peerhost}:{self.peerport}"


@dataclass(frozen=True, slots=True)
class Will:
    """The will message and its delay in seconds."""

    message: Message
    delay: int


@dataclass(slots=True, eq=False)
class Client:
    """A connected client, or a session without connection."""

    identity: ClientIdentity
    endpoint: ClientEndpoint
    proto_name: str
    proto_ver: int
    keepalive: int
    clean_start: bool
    expiry: float
    session: Session
    connected_at: float
    is_superuser: bool = False
    cache: AuthzCache = field(default_factory=AuthzCache)
    will: Will | None = None
    connection: ClientConnection | None = None
    disconnected_at: float | None = None
    counters: ClientCounters = field(default_factory=ClientCounters)
    expiry_timer: Timer | None = None
    will_timer: Timer | None = None
    round_robin: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def clientid(self) -> str:
        """The client id; that of the certificate if `peer_cert_as_clientid` is set."""
        return self.identity.clientid

    @property
    def never_expires(self) -> bool:
        """Whether the session does not expire."""
        return self.expiry >= EXPIRY_NEVER

    def deliver(self, delivery: Delivery) -> None:
        """Sends a message, or queues it until the client reconnects or its window has room."""
        if self.connection is None:
            self.session.enqueue(delivery)
            return
        out = self.session.deliver(delivery)
        if out is not None:
            self.connection.send_messages((out,))

    def stop_timers(self) -> None:
        """Cancels the timers of expiry and will."""
        for timer in (self.expiry_timer, self.will_timer):
            if timer is not None:
                timer.cancel()
        self.expiry_timer = self.will_timer = None
