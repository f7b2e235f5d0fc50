"""The broker's settings, with EMQX's defaults and validation; a change applies to new connections only."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from controller.standin.release import EmqxRelease
from controller.standin.zones import (
    ZONE_DEFAULTS,
    InvalidSettingError,
    MqttLimits,
    checked_section,
    read_limits,
    seconds,
)

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

_MAX_CACHE_ENTRIES = 1_048_576  # EMQX `authorization.cache.max_size`
GLOBAL_ZONE = "default"
SHARE_STRATEGIES = ("random", "round_robin", "round_robin_per_group", "sticky", "local", "hash_topic", "hash_clientid")


@dataclass(slots=True)
class Settings:
    """All sections, in the format of the API."""

    zone_defaults: Mapping[str, dict[str, Any]] = field(default_factory=lambda: ZONE_DEFAULTS)
    authz_defaults: Mapping[str, Any] = field(default_factory=lambda: _AUTHZ_DEFAULTS)
    zone: dict[str, dict[str, Any]] = field(init=False)
    named_zones: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # what differs from `zone`
    sys_topics: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(_SYS_DEFAULTS))
    authz: dict[str, Any] = field(init=False)
    share_groups: dict[str, Any] = field(default_factory=dict)  # `strategy` of single groups

    def __post_init__(self) -> None:
        self.zone = copy.deepcopy(dict(self.zone_defaults))
        self.authz = copy.deepcopy(dict(self.authz_defaults))

    @classmethod
    def of(cls, release: EmqxRelease) -> Self:
        """Returns the default settings of a release."""
        return cls(release.zone_defaults, {**_AUTHZ_DEFAULTS, **release.authorization, "no_match": release.no_match})

    def limits(self, zone: str = GLOBAL_ZONE) -> MqttLimits:
        """Returns the limits of a new connection to a listener of this zone."""
        return read_limits(self._sections(self.named_zones.get(zone, {})))

    def _sections(self, own: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {root: {**section, **own.get(root, {})} for root, section in self.zone.items()}

    def put_zone(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces all sections of the global zone, with defaults for absent keys of a section, and returns them.

        Raises:
            InvalidSettingError: a missing section or an invalid value; nothing is changed then.
        """
        merged: dict[str, dict[str, Any]] = {}
        for root in self.zone_defaults:
            if root not in change:
                raise InvalidSettingError(root, None, "required_field")
            merged[root] = checked_section(self.zone_defaults, root, change[root])
        read_limits(merged)
        self.zone = merged
        return copy.deepcopy(merged)

    def change_zone(self, change: dict[str, Any]) -> None:
        """Changes single keys of the global zone.

        Raises:
            InvalidSettingError: an unknown section or an invalid value; nothing is changed then.
        """
        for root, part in change.items():
            checked_section(self.zone_defaults, root, part)
        self.put_zone(self._sections(change))

    def put_named_zones(self, zones: dict[str, Any]) -> None:
        """Replaces all named zones; what a zone does not set is that of the global zone.

        Raises:
            InvalidSettingError: an unknown section or an invalid value; nothing is changed then.
        """
        for name, own in zones.items():
            if not isinstance(own, dict):
                raise InvalidSettingError(f"zones.{name}", own, "bad_value_for_struct")
            for root, part in own.items():
                checked_section(self.zone_defaults, root, part)
            read_limits(self._sections(own))
        self.named_zones = copy.deepcopy(zones)

    def share_strategy(self, group: str) -> str:
        """Returns how a member of a share group is chosen."""
        own = self.share_groups.get(group, {})
        return str(own.get("strategy") or self.zone["mqtt"]["shared_subscription_strategy"])

    def put_share_groups(self, groups: object) -> None:
        """Replaces the strategies of single groups.

        Raises:
            InvalidSettingError: not a strategy for each group.
        """
        if not isinstance(groups, dict) or not all(isinstance(one, dict) and len(one) == 1 for one in groups.values()):
            raise InvalidSettingError("broker.shared_subscription_group", groups, "bad_value_for_struct")
        for name, own in groups.items():
            if own.get("strategy") not in SHARE_STRATEGIES:
                path = f"broker.shared_subscription_group.{name}.strategy"
                raise InvalidSettingError(path, own.get("strategy"), "unable_to_convert_to_enum_symbol")
        self.share_groups = copy.deepcopy(groups)

    def put_sys_topics(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces the section, with defaults for absent keys.

        Raises:
            InvalidSettingError: an unknown key.
        """
        merged = checked_section({"sys_topics": _SYS_DEFAULTS}, "sys_topics", change)
        events = change.get("sys_event_messages", {})
        merged["sys_event_messages"] = checked_section(_SYS_DEFAULTS, "sys_event_messages", events)
        self.sys_topics = merged
        return copy.deepcopy(merged)

    def put_authz(self, change: dict[str, Any]) -> dict[str, Any]:
        """Replaces the section, with defaults for absent keys.

        Raises:
            InvalidSettingError: an unknown key or an invalid value.
        """
        merged = checked_section({"authorization": self.authz_defaults}, "authorization", change)
        cache = checked_section(self.authz_defaults, "cache", change.get("cache", {}))
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
