"""Options of the MQTT connection, validated when they are created."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from schemas.base import MAX_PACKET_BYTES
from schemas.broker_address import BrokerAddress
from schemas.topics import ALL_UP

MAX_SERVERS: Final = 16
MAX_RECEIVE_MAXIMUM: Final = 65_535  # messages; the field has two bytes [MQTT-3.1.2.11.3]
MAX_KEEPALIVE_SECONDS: Final = 65_535
MAX_CLIENT_ID: Final = 256  # characters


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Settings of the connection and the bounds of its buffers.

    Of those after `receive_maximum`, `cordon.toml` sets only the subscriptions; tests shorten the others.

    Attributes:
        servers: tried in order, `mqtt://host:port` or `mqtts://host:port`.
        protocol: `auto` prefers MQTT 5 and falls back to 3.1.1, also without an answer to the MQTT 5 CONNECT.
        ca: trusted authorities, PEM; the system's when absent. Read at each connection, as are the next two.
        session_expiry_seconds: how long the broker keeps the session without a connection; 0 ends it then.
        receive_maximum: unacknowledged messages from the broker (MQTT 5), and messages in the inbox before reading
            stops (any protocol; paho may still deliver `max_inflight` more).
        max_waiting_bytes: payload bytes in the inbox before reading stops.
        max_packet_bytes: the largest packet the broker may send (MQTT 5; it drops larger ones, which are no message
            of the protocol).
        max_queued: outgoing messages, queued or in flight.
        max_inflight: outgoing messages in flight; reduced to the broker's receive maximum.
        refused_wait_seconds: about how long to wait after the broker refused, or another client took the id.
    """

    servers: tuple[str, ...]
    client_id: str
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    session_expiry_seconds: int = 7200
    receive_maximum: int = 1000
    keepalive_seconds: int = 30
    connect_timeout_seconds: float = 10.0
    confirm_timeout_seconds: float = 10.0
    backoff_floor_seconds: float = 1.0
    backoff_ceiling_seconds: float = 30.0
    refused_wait_seconds: float = 30.0
    max_queued: int = 10_000
    max_inflight: int = 100
    max_packet_bytes: int = MAX_PACKET_BYTES
    max_waiting_bytes: int = 64 * 1024 * 1024
    subscriptions: tuple[str, ...] = (ALL_UP,)

    def __post_init__(self) -> None:
        if not 1 <= len(self.servers) <= MAX_SERVERS:
            raise ValueError(f"between 1 and {MAX_SERVERS} servers are needed")
        for url in self.servers:
            BrokerAddress.parse(url)
        if not 1 <= len(self.client_id) <= MAX_CLIENT_ID:
            raise ValueError("a client id is needed: it identifies the session at the broker")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together")
        if self.password is not None and self.username is None:
            raise ValueError("a password needs a user name")
        self._check_limits()

    def _check_limits(self) -> None:
        if not 1 <= self.receive_maximum <= MAX_RECEIVE_MAXIMUM:
            raise ValueError(f"receive_maximum is between 1 and {MAX_RECEIVE_MAXIMUM}")
        if not 1 <= self.keepalive_seconds <= MAX_KEEPALIVE_SECONDS:
            raise ValueError(f"keepalive_seconds is between 1 and {MAX_KEEPALIVE_SECONDS}")
        if not 0 < self.backoff_floor_seconds <= self.backoff_ceiling_seconds:
            raise ValueError("back-off runs from a floor above zero to a ceiling not below it")
        if not self.subscriptions:
            raise ValueError("a subscription is needed")
        if min(self.max_queued, self.max_inflight, self.max_packet_bytes, self.max_waiting_bytes) < 1:
            raise ValueError("limits are at least 1")
        if min(self.connect_timeout_seconds, self.confirm_timeout_seconds, self.refused_wait_seconds) <= 0:
            raise ValueError("time limits are above zero")
        if self.session_expiry_seconds < 0:
            raise ValueError("session_expiry_seconds is not negative")
