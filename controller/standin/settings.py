"""The broker's settings, with EMQX's defaults and validation; a change applies to new connections only."""

import copy
import re
from dataclasses import dataclass, field
from typing import Any

_ROOT_DEFAULTS: dict[str, dict[str, Any]] = {
    "durable_sessions": {
        "batch_size": 100, "enable": False, "heartbeat_interval": "5000ms", "idle_poll_interval": "10s",
        "message_retention_period": "1d", "session_gc_batch_size": 100, "session_gc_interval": "10m",
    },
    "flapping_detect": {"ban_time": "5m", "enable": False, "max_count": 15, "window_time": "1m"},
    "force_gc": {"bytes": "16MB", "count": 16000, "enable": True},
    "force_shutdown": {"enable": True, "max_heap_size": "32MB", "max_mailbox_size": 1000},
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
}  # fmt: skip
_SYS_DEFAULTS: dict[str, Any] = {
    "sys_event_messages": {
        "client_connected": True,
        "client_disconnected": True,
        "client_subscribed": False,
        "client_unsubscribed": False,
    },
    "sys_heartbeat_interval": "30s",
    "sys_msg_interval": "1m",
}
_AUTHZ_DEFAULTS: dict[str, Any] = {
    "cache": {"enable": True, "excludes": [], "max_size": 32, "ttl": "1m"},
    "deny_action": "ignore",
    "no_match": "allow",
}

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_MAX_CACHE_ENTRIES = 1_048_576  # EMQX `authorization.cache.max_size`
_MAX_DURATION_SECONDS = 10 * 365 * 86400.0


class InvalidSettingError(ValueError):
    """The setting at `path` has an invalid value."""

    def __init__(self, path: str, value: object, reason: str) -> None:
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
    """The settings of `mqtt` that the stand-in implements; read once for each new connection."""

    max_inflight: int
    max_queue: int
    store_qos0: bool
    session_expiry: float
    cert_clientid: bool
    max_qos: int


def _integer(mqtt: dict[str, Any], name: str, low: int, high: int) -> int:
    value = mqtt[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidSettingError(f"mqtt.{name}", value, f"Expected an integer between {low} and {high}")
    return value


def read_limits(mqtt: dict[str, Any]) -> MqttLimits:
    """Validates the section `mqtt` and returns the settings that the stand-in implements.

    Raises:
        InvalidSettingError: a value is invalid.
    """
    queue = mqtt["max_mqueue_len"]
    expiry = mqtt["session_expiry_interval"]
    try:
        session_expiry = seconds(expiry)
    except ValueError as error:
        raise InvalidSettingError("mqtt.session_expiry_interval", expiry, str(error)) from error
    return MqttLimits(
        max_inflight=_integer(mqtt, "max_inflight", 1, 65535),
        # 0 means no limit
        max_queue=0 if queue == "infinity" else _integer(mqtt, "max_mqueue_len", 0, 10_000_000),
        store_qos0=bool(mqtt["mqueue_store_qos0"]),
        session_expiry=session_expiry,
        cert_clientid=mqtt["peer_cert_as_clientid"] == "cn",
        max_qos=_integer(mqtt, "max_qos_allowed", 0, 2),
    )


@dataclass(slots=True)
class Settings:
    """All sections, in the format of the API."""

    zone: dict[str, dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(_ROOT_DEFAULTS))
    sys_topics: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(_SYS_DEFAULTS))
    authz: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(_AUTHZ_DEFAULTS))

    def limits(self) -> MqttLimits:
        """Returns the limits of a new connection."""
        return read_limits(self.zone["mqtt"])

    def put_zone(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces the given sections, with defaults for absent keys, and returns them.

        Raises:
            InvalidSettingError: an unknown section or an invalid value; nothing is changed then.
        """
        merged: dict[str, dict[str, Any]] = {}
        for root, value in change.items():
            merged[root] = _overlay(_ROOT_DEFAULTS, root, value)
        if "mqtt" in merged:
            read_limits(merged["mqtt"])
        self.zone.update(merged)
        return copy.deepcopy(merged)

    def put_sys_topics(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces the section, with defaults for absent keys.

        Raises:
            InvalidSettingError: an unknown key.
        """
        merged = _overlay({"sys_topics": _SYS_DEFAULTS}, "sys_topics", change)
        events = change.get("sys_event_messages", {})
        merged["sys_event_messages"] = _overlay(_SYS_DEFAULTS, "sys_event_messages", events)
        self.sys_topics = merged
        return copy.deepcopy(merged)

    def put_authz(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces the section, with defaults for absent keys.

        Raises:
            InvalidSettingError: an unknown key or an invalid value.
        """
        merged = _overlay({"authorization": _AUTHZ_DEFAULTS}, "authorization", change)
        cache = _overlay(_AUTHZ_DEFAULTS, "cache", change.get("cache", {}))
        for name, allowed in (("no_match", ("allow", "deny")), ("deny_action", ("ignore", "disconnect"))):
            if merged[name] not in allowed:
                raise InvalidSettingError(f"authorization.{name}", merged[name], "not_a_enum_symbol")
        try:
            seconds(cache["ttl"])
        except ValueError as error:
            raise InvalidSettingError("authorization.cache.ttl", cache["ttl"], str(error)) from error
        size = cache["max_size"]
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_CACHE_ENTRIES:
            raise InvalidSettingError("authorization.cache.max_size", size, "out_of_range")
        excludes = cache["excludes"]
        if not isinstance(excludes, list) or not all(isinstance(topic, str) for topic in excludes):
            raise InvalidSettingError("authorization.cache.excludes", excludes, "bad_array_value")
        merged["cache"] = cache
        self.authz = merged
        return copy.deepcopy(merged)


def _overlay(defaults: dict[str, Any], root: str, value: object) -> dict[str, Any]:
    base = defaults.get(root)
    if not isinstance(base, dict):
        raise InvalidSettingError(root, value, "unknown_fields")
    if not isinstance(value, dict):
        raise InvalidSettingError(root, value, "bad_value_for_struct")
    for name in value:
        if name not in base:
            raise InvalidSettingError(f"{root}.{name}", name, "unknown_fields")
    return {**copy.deepcopy(base), **copy.deepcopy(value)}
