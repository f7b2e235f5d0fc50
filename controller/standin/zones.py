"""Zones: the sections of the global zone and of named ones, and the limits that follow for a connection. Pure."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# In the order in which EMQX checks them.
ZONE_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "mqtt": {
        "exclusive_subscription": False, "max_topic_alias": 65535, "use_username_as_clientid": False,
        "idle_timeout": "15s", "mqueue_store_qos0": True, "session_expiry_interval": "2h",
        "upgrade_qos": False, "mqueue_priorities": "disabled", "strict_mode": False,
        "shared_subscription": True, "server_keepalive": "disabled", "wildcard_subscription": True,
        "max_clientid_len": 65535, "response_information": "",
        "shared_subscription_initial_sticky_pick": "random", "max_awaiting_rel": 100,
        "peer_cert_as_username": "disabled", "client_attrs_init": [], "retry_interval": "infinity",
        "retain_available": True, "message_expiry_interval": "infinity", "ignore_loop_deliver": False,
        "clientid_override": "disabled", "max_qos_allowed": 2, "max_mqueue_len": 1000,
        "max_topic_levels": 128, "max_subscriptions": "infinity", "peer_cert_as_clientid": "disabled",
        "mqueue_default_priority": "lowest", "max_inflight": 32, "keepalive_multiplier": 1.5,
        "shared_subscription_strategy": "round_robin", "keepalive_check_interval": "30s",
        "await_rel_timeout": "300s", "max_packet_size": "1MB",
    },
    "flapping_detect": {"ban_time": "5m", "enable": False, "max_count": 15, "window_time": "1m"},
    "force_shutdown": {"enable": True, "max_heap_size": "32MB", "max_mailbox_size": 1000},
    "force_gc": {"bytes": "16MB", "count": 16000, "enable": True},
    "durable_sessions": {
        "batch_size": 100, "enable": False, "heartbeat_interval": "5000ms", "idle_poll_interval": "10s",
        "message_retention_period": "1d", "session_gc_batch_size": 100, "session_gc_interval": "10m",
    },
}  # fmt: skip

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_MAX_DURATION_SECONDS = 10 * 365 * 86400.0
_SIZE = re.compile(r"(\d{1,12})(KB|MB|GB)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
# Measured: a queue of about 17,500 messages reaches the default `max_heap_size` of 32 MB.
HEAP_BYTES_PER_MESSAGE: Final = 32 * 1024**2 // 17_500


class InvalidSettingError(ValueError):
    """The setting at `path` has an invalid value."""

    def __init__(self, path: str, value: object, reason: object) -> None:
        super().__init__(f"{path}: {reason}: {value!r}")
        self.path = path
        self.value = value
        self.reason = reason


def seconds(value: object) -> float:
    """Parses a duration such as `500ms`, `15s`, `2h`, `1h30m`.

    Raises:
        ValueError: not a duration.
    """
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("not a duration")
    total = sum(int(part[1]) * _UNITS[part[2]] for part in _DURATION_PART.finditer(value))
    if total > _MAX_DURATION_SECONDS:
        raise ValueError("not a duration")
    return total


@dataclass(slots=True)
class MqttLimits:
    """The settings of a zone that the stand-in implements; read once for each new connection."""

    max_inflight: int
    max_queue: int  # messages; 0: no limit
    store_qos0: bool
    session_expiry: float  # seconds
    cert_clientid: bool
    max_qos: int
    # Messages whose queue reaches `force_shutdown.max_heap_size`, which ends the session; None: never.
    fatal_queue: int | None


def _integer(mqtt: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = mqtt[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidSettingError(f"mqtt.{name}", value, {"expected": f"{low}..{high}"})
    return value


def _bytes(path: str, value: object) -> int:
    found = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if found is None:
        raise InvalidSettingError(path, value, "not a size")
    return int(found[1]) * _SIZE_UNITS[(found[2] or "").upper()]


def read_limits(zone: Mapping[str, Mapping[str, Any]]) -> MqttLimits:
    """Validates the sections of a zone and returns the settings that the stand-in implements.

    Raises:
        InvalidSettingError: a value is invalid.
    """
    mqtt, shutdown = zone["mqtt"], zone["force_shutdown"]
    queue = mqtt["max_mqueue_len"]
    expiry = mqtt["session_expiry_interval"]
    try:
        session_expiry = seconds(expiry)
    except ValueError as error:
        raise InvalidSettingError("mqtt.session_expiry_interval", expiry, str(error)) from error
    heap = _bytes("force_shutdown.max_heap_size", shutdown["max_heap_size"])
    return MqttLimits(
        max_inflight=_integer(mqtt, "max_inflight", 1, 65535),
        max_queue=0 if queue == "infinity" else _integer(mqtt, "max_mqueue_len", 0, 10_000_000),
        store_qos0=bool(mqtt["mqueue_store_qos0"]),
        session_expiry=session_expiry,
        cert_clientid=mqtt["peer_cert_as_clientid"] == "cn",
        max_qos=_integer(mqtt, "max_qos_allowed", 0, 2),
        fatal_queue=heap // HEAP_BYTES_PER_MESSAGE if shutdown["enable"] and heap else None,
    )


def checked_section(defaults: Mapping[str, Any], root: str, value: object) -> dict[str, Any]:
    """Returns a section with defaults for absent keys.

    Raises:
        InvalidSettingError: an unknown section or key.
    """
    base = defaults.get(root)
    if not isinstance(base, dict):
        raise InvalidSettingError(root, value, "unknown_fields")
    if not isinstance(value, dict):
        raise InvalidSettingError(root, value, "bad_value_for_struct")
    for name in value:
        if name not in base:
            raise InvalidSettingError(f"{root}.{name}", name, "unknown_fields")
    return {**copy.deepcopy(base), **copy.deepcopy(value)}
