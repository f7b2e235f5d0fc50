"""One client as EMQX's process for it: identity, session, access cache, last will, counters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller.standin.authz import AuthzCache, ClientIdentity
from controller.standin.limits import EXPIRY_NEVER
from controller.standin.messages import Delivery, Message
from controller.standin.session import OutgoingPacket, Session


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Make it never come."""


class Scheduler(Protocol):
    """The only way the broker's logic reaches the event loop."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back after so many seconds."""


class ClientConnection(Protocol):
    """The connection of a client, seen from the broker."""

    def send_messages(self, out: Sequence[OutgoingPacket]) -> None:
        """Write messages to the client."""

    def finish(self, reason_code: int | None) -> None:
        """Close, with a DISCONNECT of this reason where the protocol has one; tells nobody."""

    def abort(self) -> None:
        """Drop the socket at once, as a dead node does."""


@dataclass(slots=True)
class ClientCounters:
    """What EMQX counts for a client row."""

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
    """Where a client came in and from where."""

    node: str
    listener: str
    sockport: int
    peerhost: str
    peerport: int


@dataclass(frozen=True, slots=True)
class Will:
    """The last will and the seconds to wait with it."""

    message: Message
    delay: int


@dataclass(slots=True, eq=False)
class Client:
    """A connected client, or the session it left behind."""

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
    link: ClientConnection | None = None
    disconnected_at: float | None = None
    counters: ClientCounters = field(default_factory=ClientCounters)
    expiry_timer: Timer | None = None
    will_timer: Timer | None = None
    round_robin: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def clientid(self) -> str:
        """The id it is known by, taken from its certificate where the listener says so."""
        return self.identity.clientid

    @property
    def never_expires(self) -> bool:
        """Whether its session outlives any absence."""
        return self.expiry >= EXPIRY_NEVER

    def deliver(self, delivery: Delivery) -> None:
        """Send a message now, or keep it for when the client is back or has room."""
        if self.link is None:
            self.session.enqueue(delivery)
            return
        out = self.session.deliver(delivery)
        if out is not None:
            self.link.send_messages((out,))

    def stop_timers(self) -> None:
        """Nothing that was scheduled for it may come any more."""
        for timer in (self.expiry_timer, self.will_timer):
            if timer is not None:
                timer.cancel()
        self.expiry_timer = self.will_timer = None
