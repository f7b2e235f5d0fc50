"""Configuration of a stand-in, to imitate a differently configured EMQX.

The format is a JSON object; every part is optional:

    {"listeners": {"ssl:default": {"bind": "0.0.0.0:8883", "ssl_options": {"verify": "verify_none"}}},
     "zone": {"mqtt": {"max_inflight": 1000}},
     "zones": {"cordon": {"mqtt": {"max_mqueue_len": 100000}, "force_shutdown": {"max_heap_size": "512MB"}}},
     "authorization": {"no_match": "deny"},
     "sources": [{"type": "file", "enable": true, "rules": "{allow, all}."}, {"type": "built_in_database"}],
     "auto_subscribe": [{"topic": "fleet/${clientid}/in", "qos": 1}],
     "dashboard": {"username": "admin", "password": "public"},
     "api_keys": [{"name": "old", "role": "administrator", "expired_at": "infinity"}],
     "cookie": "emqxsecretcookie",
     "versions": {"emqx2@127.0.0.1": "5.7.2"},
     "security_profile": "hardened",
     "api_scopes": ["connections", "access_control"],
     "max_sessions": 25,
     "rule_engine": {"limit_selects_in_namespace": false}}

`zone`, `zones`, `authorization`, `sources`, `auto_subscribe`, `dashboard`, `security_profile`, `api_scopes` (the last
two from 6.x on) and `max_sessions` (of a licence) take effect, of `listeners` the keys `zone` and `enable_authn`, and
of `rule_engine` the key `limit_selects_in_namespace`. The rest of `listeners` and `rule_engine`, `api_keys`, `cookie`
and `versions` only change what the API reports; the stand-in's sockets do not change.
"""

from typing import Any, Final

from controller.standin.state import ClusterState, FileAuthzSource
from controller.standin.zones import InvalidSettingError

_PARTS: Final = {
    "listeners": dict,
    "zone": dict,
    "zones": dict,
    "authorization": dict,
    "sources": list,
    "auto_subscribe": list,
    "dashboard": dict,
    "api_keys": list,
    "cookie": str,
    "versions": dict,
    "security_profile": str,
    "api_scopes": list,
    "max_sessions": int,
    "rule_engine": dict,
}


def apply_overrides(state: ClusterState, given: Any) -> None:
    """Applies the configuration.

    Raises:
        InvalidSettingError: an unknown or invalid part; parts before it may have been applied.
    """
    if not isinstance(given, dict):
        raise InvalidSettingError("root", given, "bad_value_for_struct")
    for name, value in given.items():
        kind = _PARTS.get(name)
        if kind is None or not isinstance(value, kind):
            raise InvalidSettingError(str(name), value, "unknown_fields" if kind is None else "bad_value_for_struct")
    if "zone" in given:
        state.settings.change_zone(given["zone"])
    if "zones" in given:
        state.settings.put_named_zones(given["zones"])
    if "authorization" in given:
        state.settings.put_authz({**state.settings.authz, **given["authorization"]})
    if "sources" in given:
        _sources(state, given["sources"])
    if "auto_subscribe" in given:
        state.auto_subscribe = [{"qos": 0, "rh": 0, "rap": 0, "nl": 0, **row} for row in given["auto_subscribe"]]
    if "security_profile" in given:
        if given["security_profile"] not in ("legacy", "hardened"):
            raise InvalidSettingError("security_profile", given["security_profile"], "not_a_enum_symbol")
        state.security_profile = given["security_profile"]
    if "api_scopes" in given:
        state.api_scopes = frozenset(map(str, given["api_scopes"]))
    state.rule_engine = given.get("rule_engine", state.rule_engine)
    state.max_sessions = given.get("max_sessions", state.max_sessions)
    state.dashboard.username = str(given.get("dashboard", {}).get("username", state.dashboard.username))
    state.dashboard.password = str(given.get("dashboard", {}).get("password", state.dashboard.password))
    state.dashboard.api_keys = given.get("api_keys", state.dashboard.api_keys)
    state.dashboard.cookie = given.get("cookie", state.dashboard.cookie)
    state.listener_overrides = given.get("listeners", state.listener_overrides)
    state.version_overrides = given.get("versions", state.version_overrides)


def _sources(state: ClusterState, rows: list[Any]) -> None:
    kinds = [row.get("type") if isinstance(row, dict) else None for row in rows]
    if not set(kinds) <= {"file", "built_in_database"} or len(set(kinds)) != len(kinds):
        raise InvalidSettingError("sources", rows, "the stand-in has file and built_in_database, each once")
    state.authz_source, state.file_source = None, None
    for row in rows:
        enabled = bool(row.get("enable", True))
        if row["type"] == "file":
            state.file_source = FileAuthzSource(enabled, str(row.get("rules", "")))
        else:
            state.authz_source = enabled
    state.file_first = kinds[:1] == ["file"]
