"""The agent's own messages that the broker has not confirmed, and how large a packet it takes; any thread."""

import threading
from collections import deque
from collections.abc import Callable

from device_agent.domain.packet_limit import PacketLimit

OnPuback = Callable[[bool], None]
"""Called with whether the broker accepted a message and had a subscriber for it."""
_Key = tuple[object, int]  # connection and message id


class InFlightMessages:
    """Messages of one connection after the other, by connection and message id."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._callbacks: dict[_Key, OnPuback] = {}
        self._sizes: dict[_Key, int] = {}  # bytes of packets
        self._pubacks: deque[tuple[object, int, bool]] = deque()  # not dispatched yet
        self._unclaimed: set[int] = set()  # message ids of PUBACKs without a message in the last round
        self._limit = PacketLimit()
        self._connection: object = None

    @property
    def max_packet(self) -> int:
        """Bytes of the largest packet that may be sent; 0: any."""
        with self._mutex:
            return self._limit.most

    def connected(self, connection: object, announced: int) -> None:
        """Begins with a connection, and takes the limit that its CONNACK announced, in bytes; 0: none."""
        with self._mutex:
            self._connection = connection
            self._limit = self._limit.connected(announced)

    def lost(self, *, was_too_large: bool, may_tell: bool) -> None:
        """Forgets the messages of a lost connection; see `PacketLimit.lost`."""
        with self._mutex:
            largest = max(self._sizes.values(), default=0)
            self._limit = self._limit.lost(largest, was_too_large=was_too_large, may_tell=may_tell)
            self._connection = None
            self._callbacks.clear()
            self._sizes.clear()
        self._pubacks.clear()
        self._unclaimed.clear()

    def add(self, connection: object, mid: int, size: int, on_puback: OnPuback | None) -> None:
        """Adds a message that was handed over, of `size` bytes as a packet; one of a lost connection is ignored."""
        with self._mutex:
            if connection is not self._connection:
                return
            self._sizes[connection, mid] = size
            if on_puback is not None:
                self._callbacks[connection, mid] = on_puback

    def on_puback(self, connection: object, mid: int, *, delivered: bool) -> None:
        """Keeps a PUBACK until `dispatch`: callbacks must not be called while paho holds its lock."""
        self._pubacks.append((connection, mid, delivered))

    def dispatch(self) -> None:
        """Calls the callbacks of the PUBACKs that have arrived; from the thread of the connection."""
        later: list[tuple[object, int, bool]] = []
        while self._pubacks:
            connection, mid, delivered = self._pubacks.popleft()
            with self._mutex:
                on_puback = self._callbacks.pop((connection, mid), None)
                size = self._sizes.pop((connection, mid), None)
                self._limit = self._limit.acknowledged(size or 0)
            if on_puback is not None:
                on_puback(delivered)
            elif size is not None or mid in self._unclaimed:
                self._unclaimed.discard(mid)
            else:
                # The PUBACK arrived before the publishing thread added its message.
                self._unclaimed.add(mid)
                later.append((connection, mid, delivered))
        self._pubacks.extend(later)
