"""The API responses of a broker that are inspected, and why others are missing. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.domain.broker.ports import BrokerListener, PortUse

# Names of the responses; `gather_broker_facts` reads each of them.
NODES: Final = "nodes"
LISTENERS: Final = "listeners"
AUTHENTICATION: Final = "authentication"
SOURCES: Final = "sources"
FILE_RULES: Final = "file_rules"
AUTHORIZATION: Final = "authorization"
RULES_FOR_ALL: Final = "rules_for_all"
ZONE: Final = "zone"
CONTROLLER_ZONE: Final = "controller_zone"
AUTO_SUBSCRIBE: Final = "auto_subscribe"
RULE_ENGINE: Final = "rule_engine"
WILDCARD_BAN: Final = "ban_of_plus"
NODE_CONFIG: Final = "node_config"
COUNTS: Final = "counts"
LOGIN: Final = "login"
API_KEYS: Final = "api_keys"
CERTIFICATES: Final = "certificates"
SHARE_GROUP: Final = "share_group"

_USES: Final = {"tcp": PortUse.MQTT, "ssl": PortUse.MQTTS, "ws": PortUse.WEBSOCKET, "wss": PortUse.WEBSOCKET_TLS}
_ANYWHERE: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - values of a listener's `bind`


@dataclass(frozen=True, slots=True)
class BrokerInspection:
    """`answers`: responses by name, as EMQX sends them; `silence`: why the others are missing.

    `receive_maximum`: messages in flight that the controller asks for. `api`: URLs of EMQX's API. `is_shared`:
    whether controllers share the fleet's messages; one alone has a session of its own.
    """

    answers: Mapping[str, Any]
    silence: Mapping[str, str]
    at: float
    receive_maximum: int
    api: tuple[str, ...]
    is_shared: bool = False


def parse_bind(text: object) -> tuple[str, int]:
    """Returns address and port of a listener's `bind`: `*` for every address, port 0 if it is invalid."""
    host, _, port = str(text).rpartition(":")
    host = host.strip("[]")
    return ("*" if host in _ANYWHERE else host), int(port) if port.isdecimal() and len(port) <= 5 else 0


def parse_listeners(rows: Any) -> tuple[BrokerListener, ...]:
    """Returns the enabled MQTT listeners among the rows; other kinds (QUIC) open no TCP port."""
    listeners: list[BrokerListener] = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("enable", True) is False:
            continue
        use = _USES.get(str(row.get("type")))
        address, port = parse_bind(row.get("bind"))
        if use is not None and port:
            listeners.append(BrokerListener(use, address, port))
    return tuple(listeners)


def is_loopback(address: str) -> bool:
    return address in {"localhost", "::1"} or address.startswith("127.")
