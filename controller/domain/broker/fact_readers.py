"""One reader for each API response of a broker: the response as EMQX sends it in, facts out. Pure.

A fact that the response lacks is a `FactUnavailableError` as value. A response of another form may raise anything,
which the caller treats as unavailable.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controller.domain.broker.inspection import (
    AUTHENTICATION,
    FILE_RULES,
    NODES,
    BrokerInspection,
    is_loopback,
    parse_bind,
)
from controller.domain.broker.ports import PortsError, collisions, node_ports
from controller.domain.broker.session_limits import zone_limits
from controller.domain.policy.findings import RuleResult
from schemas import topics as wire

_DEFAULT_COOKIE: Final = "emqxsecretcookie"
_TLS_TYPES: Final = frozenset({"ssl", "wss"})
_PLAIN_TYPES: Final = frozenset({"tcp", "ws"})
_MODERN: Final = frozenset({"tlsv1.2", "tlsv1.3"})
_YEAR: Final = timedelta(days=365)
_DAY: Final = 86_400.0  # seconds
_ALLOW_ALL: Final = re.compile(r"^[ \t]*\{\s*allow\s*,\s*all\s*\}\s*\.", re.MULTILINE)
# EMQX 6.2.2 and later: everything, unless the security profile is `hardened`.
_ALLOW_LEGACY: Final = re.compile(
    r"^[ \t]*\{\s*allow\s*,\s*\{\s*security_profile\s*,\s*legacy\s*\}\s*\}\s*\.", re.MULTILINE
)
_DURATION: Final = re.compile(r"(\d{1,15})(ms|s|m|h|d|w)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NAMESPACE_LIMIT: Final = "limit_selects_in_namespace"
_FIRST_WITH_NAMESPACES: Final = (6, 0, 3)
_RELEASE_NUMBER: Final = re.compile(r"\d{1,6}")
_OWN_BRANCH: Final = wire.down_branch("${clientid}").removesuffix("#")
_WIDE: Final = frozenset({"#", "+/#"})

BrokerResponse = Mapping[str, Any]


class FactUnavailableError(ValueError):
    """Why a fact has no value; used as a value in its place."""

    def __init__(self, reason: str, result: RuleResult = RuleResult.UNKNOWN) -> None:
        super().__init__(reason)
        self.result = result


def read_nodes(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /nodes`."""
    running = [row for row in answer if row["node_status"] == "running"]
    versions = sorted({str(row["version"]).removeprefix("v") for row in running if row.get("version")})
    names = [str(row["node"]) for row in answer]
    try:
        clashes: Any = list(collisions(port for name in names for port in node_ports(name)))
    except PortsError as e:
        clashes = FactUnavailableError(str(e))
    return {
        "versions": versions or FactUnavailableError("no running node reports its version"),
        "nodes_not_running": [str(row["node"]) for row in answer if row["node_status"] != "running"],
        "node_port_clashes": clashes,
    }


def read_listeners(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /listeners`, each with its details."""
    rows = [row for row in answer if row.get("enable", True) is not False]
    tls = [row for row in rows if row["type"] in _TLS_TYPES]
    settings = {str(row["id"]): row["ssl_options"] for row in tls if isinstance(row.get("ssl_options"), dict)}
    return {
        "plain_listeners": [str(row["id"]) for row in rows if row["type"] in _PLAIN_TYPES and _is_open(row)],
        "anonymous_listeners": _anonymous(rows, inspection),
        "tls_without_verify": [name for name, tls in settings.items() if tls.get("verify") != "verify_peer"],
        "tls_without_required_certificate": [
            name for name, tls in settings.items() if tls.get("fail_if_no_peer_cert") is not True
        ],
        "tls_without_crl": [name for name, tls in settings.items() if tls.get("enable_crl_check") is not True],
        "tls_with_old_versions": [
            name for name, tls in settings.items() if "versions" in tls and not set(tls["versions"]) <= _MODERN
        ],
    }


def missing_tls_settings(answer: Any) -> list[str]:
    """Returns the TLS listeners whose TLS settings or versions are not reported."""
    rows = [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []
    return [
        str(row.get("id"))
        for row in rows
        if row.get("type") in _TLS_TYPES
        and row.get("enable", True) is not False
        and (not isinstance(row.get("ssl_options"), dict) or "versions" not in row["ssl_options"])
    ]


def _is_open(row: BrokerResponse) -> bool:
    return not is_loopback(parse_bind(row.get("bind"))[0])


def _anonymous(rows: Sequence[BrokerResponse], inspection: BrokerInspection) -> Any:
    if AUTHENTICATION not in inspection.answers:
        return FactUnavailableError(
            f"the authentication chain cannot be read: {inspection.silence.get(AUTHENTICATION, '')}"
        )
    has_authenticator = bool(_enabled(inspection.answers[AUTHENTICATION]))
    anonymous: list[str] = []
    for row in rows:
        tls = row.get("ssl_options")
        certificate = isinstance(tls, dict) and tls.get("verify") == "verify_peer" and tls.get("fail_if_no_peer_cert")
        if not certificate and not (has_authenticator and row.get("enable_authn", True) is not False):
            anonymous.append(str(row["id"]))
    return anonymous


def _enabled(chain: Any) -> list[str]:
    return [str(link["id"]) for link in chain if link.get("enable", True)]


def read_authentication(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /authentication`."""
    chain = [link for link in answer if link.get("enable", True)]
    return {
        "authenticators": _enabled(answer),
        "passwords_by_client_id": bool(chain) and all(_is_by_client_id(link) for link in chain),
    }


def _is_by_client_id(link: BrokerResponse) -> bool:
    if link.get("mechanism") == "jwt":
        claims = link.get("verify_claims") or {}
        return "${clientid}" in (claims.values() if isinstance(claims, dict) else [row.get("value") for row in claims])
    return link.get("backend") == "built_in_database" and link.get("user_id_type") == "clientid"


def read_wildcard_ban(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads whether the client id `+` is banned; `None`: the API key may not read bans."""
    if answer is None:
        return {"wildcard_client_id_banned": FactUnavailableError("the API key may not read bans")}
    return {"wildcard_client_id_banned": answer is True}


def read_sources(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /authorization/sources`."""
    return {"authz_sources": [str(row["type"]) for row in answer["sources"] if row.get("enable", True)]}


def read_file_rules(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /authorization/sources/file`; without that source, or if it is disabled, it allows nothing."""
    enabled = answer.get("enable", True)
    if not isinstance(answer.get("rules"), str):
        return {
            "file_allows_all": FactUnavailableError(
                f"its rules are not reported ({inspection.silence.get(FILE_RULES, 'no rules')})"
            )
        }
    if enabled and not _ALLOW_ALL.search(answer["rules"]) and _ALLOW_LEGACY.search(answer["rules"]):
        reason = (
            "it does with EMQX_SECURITY_PROFILE=legacy, EMQX's default, and not with hardened; the API tells neither"
        )
        return {"file_allows_all": FactUnavailableError(reason)}
    return {"file_allows_all": bool(enabled and _ALLOW_ALL.search(answer["rules"]))}


def read_authorization(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /authorization/settings`."""
    cache = answer["cache"]
    ttl = _seconds(cache["ttl"]) if cache["enable"] else 0
    return {"authz_no_match": str(answer["no_match"]), "authz_cache_seconds": ttl}


def read_rules_for_all(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads the rules for all clients of the built-in database."""
    del inspection
    wide = [row for row in answer["rules"] if row["permission"] == "allow" and row["topic"] in _WIDE]
    return {"wide_rules_for_all": [f"allow {row['action']} {row['topic']}" for row in wide]}


def read_zone(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /configs/global_zone`."""
    mqtt = answer["mqtt"]
    queue = mqtt["max_mqueue_len"]
    return {
        "client_id_source": str(mqtt["peer_cert_as_clientid"]),
        "username_as_client_id": mqtt["use_username_as_clientid"] is True,
        "max_inflight": int(mqtt["max_inflight"]),
        "max_queue": 0 if queue == "infinity" else int(queue),
        "queue_outgrows_heap": _outgrows_heap(answer),
        "session_expiry_seconds": _seconds(mqtt["session_expiry_interval"]),
        "flapping_detection": answer["flapping_detect"]["enable"] is True,
    }


def read_share_group(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads the strategy of the controllers' share group."""
    if not isinstance(answer, str):
        raise TypeError(type(answer).__name__)
    return {"share_group_strategy": answer}


def _outgrows_heap(zone: Any) -> Any:
    try:
        return zone_limits(zone).outgrows_heap
    except (KeyError, TypeError, ValueError):
        return FactUnavailableError("`force_shutdown` is not reported as expected")


def read_controller_zone(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads the zone of the controller's listener, with what it takes from the global one."""
    limits = zone_limits(answer)
    return {
        "controller_zone": str(answer["zone"]),
        "controller_max_inflight": limits.max_inflight,
        "controller_max_queue": limits.max_queue,
        "controller_queue_outgrows_heap": limits.outgrows_heap,
    }


def read_auto_subscribe(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /mqtt/auto_subscribe`; a client's own branch of Cordon stays open to it in any case."""
    topics = [str(row["topic"]) for row in answer]
    return {"auto_subscribe_topics": [topic for topic in topics if not topic.startswith(_OWN_BRANCH)]}


def read_rule_engine(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads the section `rule_engine`; releases that know the setting have it on by default."""
    value = answer.get(_NAMESPACE_LIMIT)
    if value is None:
        versions = read_nodes(inspection.answers[NODES], inspection)["versions"]
        if isinstance(versions, FactUnavailableError):
            return {"events_within_namespace": versions}
        if all(_release(version) < _FIRST_WITH_NAMESPACES for version in versions):
            reason = "this version of EMQX does not have it"
            return {"events_within_namespace": FactUnavailableError(reason, RuleResult.NOTAPPLICABLE)}
        value = True
    return {"events_within_namespace": value is True}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _RELEASE_NUMBER.findall(version)[:3])


def read_node_config(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads the section `node`; a version may mask the cookie."""
    cookie = str(answer["node"]["cookie"])
    if not cookie.strip("*"):
        reason = "EMQX hides the cookie; see node.cookie in emqx.conf and EMQX_NODE__COOKIE"
        return {"default_cookie": FactUnavailableError(reason)}
    return {"default_cookie": cookie == _DEFAULT_COOKIE}


def read_counts(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads the numbers of bans and rules of each node."""
    if len({tuple(rows) for rows in answer.values()}) <= 1:
        return {"nodes_disagree": []}
    return {"nodes_disagree": [f"{base}: {rows[0]} bans, {rows[1]} rows of rules" for base, rows in answer.items()]}


def read_login(answer: Any, _inspection: BrokerInspection) -> BrokerResponse:
    """Reads the result of a login with admin/public."""
    return {"default_dashboard_login": answer == "accepted"}


def read_api_keys(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads `GET /api_key`, made with a dashboard login."""
    rows = [row for row in answer if row.get("enable", True) and not row.get("expired", False)]
    year_ago = datetime.fromtimestamp(inspection.at, UTC) - _YEAR
    return {
        "api_keys_without_end": [
            _name(row) for row in rows if row.get("expired_at") in (None, "infinity", "undefined")
        ],
        "api_keys_older_than_a_year": [
            _name(row) for row in rows if "created_at" in row and _to_datetime(row["created_at"]) < year_ago
        ],
        "administrator_api_keys": [
            _name(row) for row in rows if row.get("role", "administrator") == "administrator" and not row.get("scopes")
        ],
    }


def read_certificates(answer: Any, inspection: BrokerInspection) -> BrokerResponse:
    """Reads the results of handshakes with the TLS listeners."""
    if not answer:
        return {"certificate_days_left": FactUnavailableError("there is no TLS listener", RuleResult.NOTAPPLICABLE)}
    ends = [handshake.ends_at for handshake in answer if handshake.ends_at is not None]
    if not ends:
        return {"certificate_days_left": FactUnavailableError(answer[0].trouble)}
    return {"certificate_days_left": int((min(ends) - inspection.at) // _DAY)}


def _name(row: BrokerResponse) -> str:
    return str(row.get("name", json.dumps(row)[:80]))


def _to_datetime(value: Any) -> datetime:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(str(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _seconds(value: Any) -> int:
    """Returns the seconds of an EMQX duration (`1m`, `2h`, `500ms`), rounded up."""
    if isinstance(value, int | float):
        return int(value / 1000)  # plain numbers are milliseconds
    parts = _DURATION.findall(str(value))
    if not parts:
        raise ValueError(f"not a duration: {value}")
    return -int(-sum(int(number) * _UNITS[unit] for number, unit in parts) // 1)
