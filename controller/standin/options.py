"""Options of a stand-in, and its limits: nothing that comes from outside grows without a limit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from controller.standin.release import RELEASES

MAX_NODES = 9  # node numbers have one digit, as in EMQX's port arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInOptions:
    """Options of a stand-in; a missing port or 0 means any free port.

    TLS listeners are opened when `tls_ca`, `tls_cert` and `tls_key` are all given; they require a client certificate.
    """

    api_secret: str
    api_key: str = "cordon"
    nodes: int = 1
    host: str = "127.0.0.1"
    mqtt_ports: tuple[int, ...] = ()
    tls_ports: tuple[int, ...] = ()
    api_ports: tuple[int, ...] = ()
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    users: tuple[tuple[str, str], ...] = ()
    emqx: str = "5.8"  # the release that it answers as, a key of `release.RELEASES`
    no_match: Literal["allow", "deny"] | None = None  # None: that of the release
    config: Any = None  # see `controller.standin.overrides`

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes must be between 1 and {MAX_NODES}, not {self.nodes}")
        if self.emqx not in RELEASES:
            raise ValueError(f"emqx must be one of {', '.join(RELEASES)}, not {self.emqx}")
        if not self.api_secret:
            raise ValueError("api_secret must not be empty")
        given = [p for p in (self.tls_ca, self.tls_cert, self.tls_key) if p is not None]
        if given and len(given) != 3:
            raise ValueError("tls_ca, tls_cert and tls_key belong together")
        if self.tls_ports and not given:
            raise ValueError("tls_ports need tls_ca, tls_cert and tls_key")

    @property
    def tls(self) -> bool:
        """Whether TLS listeners are opened."""
        return self.tls_ca is not None


MAX_PACKET_BYTES = 1_048_576  # EMQX `mqtt.max_packet_size` = 1MB
IDLE_TIMEOUT_SECONDS = 15.0  # EMQX `mqtt.idle_timeout`: from accept to CONNECT
KEEPALIVE_MULTIPLIER = 1.5  # EMQX `mqtt.keepalive_multiplier`
MAX_TOPIC_LEVELS = 128  # EMQX `mqtt.max_topic_levels`
MAX_TOPIC_BYTES = 65_535  # two length bytes on the wire
MAX_TOPIC_ALIAS = 65_535  # EMQX `mqtt.max_topic_alias`
MAX_INFLIGHT = 32  # EMQX `mqtt.max_inflight`
MAX_QUEUE_MESSAGES = 1_000  # EMQX `mqtt.max_mqueue_len`
MAX_AWAITING_REL = 100  # EMQX `mqtt.max_awaiting_rel`
SESSION_EXPIRY_SECONDS = 7_200  # EMQX `mqtt.session_expiry_interval`, for 3.1.1 without clean session
EXPIRY_NEVER = 0xFFFF_FFFF  # MQTT 5: a session that does not expire
MAX_OUTBOUND_BYTES = 16 * MAX_PACKET_BYTES  # unsent bytes after which a slow reader is disconnected
MAX_CONNECTIONS_PER_NODE = 20_000  # EMQX node `max_fds` in the recording
MAX_RETAINED = 100_000  # retained messages held by the stand-in
MAX_DELAYED = 100_000  # `$delayed` messages waiting
MAX_DELAY_SECONDS = 4_294_967  # EMQX rejects a longer `$delayed` interval
MAX_SESSIONS = 100_000  # client rows held by the stand-in
MAX_BANS = 100_000  # rows of the ban list
MAX_RULE_OWNERS = 200_000  # clients and users that have access rules
MAX_RULES_PER_OWNER = 100  # EMQX source setting `max_rules`
MAX_USERS = 100_000  # users of the built-in database
AUTHZ_CACHE_ENTRIES = 32  # EMQX `authorization.cache.max_size`
AUTHZ_CACHE_SECONDS = 60.0  # EMQX `authorization.cache.ttl`
BAN_SWEEP_SECONDS = 60.0  # EMQX removes expired rows once a minute
HANG_SECONDS = 120.0  # after which a cluster gave up a node that was stopped, in the recording
MAX_HTTP_BODY_BYTES = 8 * 1_048_576  # one API request
MAX_HTTP_CONNECTIONS = 512  # EMQX dashboard listener `max_connections`
HTTP_IDLE_SECONDS = 60.0  # a silent API connection is closed
MAX_PAGE_ROWS = 10_000  # EMQX `limit`
DEFAULT_PAGE_ROWS = 100  # EMQX `limit` when absent
