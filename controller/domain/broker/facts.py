"""Extracts the flat, typed facts that broker policies refer to from a broker's inspection. Pure.

A fact that the API key may not read, or that this version of EMQX lacks, is missing with its reason: never a pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.domain.broker import inspection as ask
from controller.domain.broker.fact_readers import (
    FactUnavailableError,
    missing_tls_settings,
    read_api_keys,
    read_authentication,
    read_authorization,
    read_auto_subscribe,
    read_certificates,
    read_controller_zone,
    read_counts,
    read_file_rules,
    read_listeners,
    read_login,
    read_node_config,
    read_nodes,
    read_rule_engine,
    read_rules_for_all,
    read_share_group,
    read_sources,
    read_wildcard_ban,
    read_zone,
)
from controller.domain.broker.inspection import BrokerInspection
from controller.domain.policy.facts import DeviceFacts, MissingFact
from controller.domain.policy.findings import RuleResult

# Every fact of a broker: its type, its source ("" for facts of the controller), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "controller_receive_maximum": (
        "int", "", "messages in flight that the controller asks for, `[mqtt] receive_maximum`"),
    "shares_messages": (
        "bool", "", "whether controllers share the fleet's messages, as with a store on PostgreSQL"),
    "share_group_strategy": (
        "string", ask.SHARE_GROUP, "how EMQX chooses the controller that gets a message, by the share group `cordon`"),
    "plain_api_addresses": ("list(string)", "", "addresses of EMQX's API in `[emqx] api` without TLS, beyond loopback"),
    "versions": ("list(string)", ask.NODES, "EMQX versions of the running nodes, each once"),
    "nodes_not_running": ("list(string)", ask.NODES, "cluster nodes that do not run"),
    "node_port_clashes": ("list(string)", ask.NODES, "nodes on one host with the same discovery port"),
    "plain_listeners": ("list(string)", ask.LISTENERS, "enabled listeners without TLS, beyond loopback"),
    "anonymous_listeners": (
        "list(string)", ask.LISTENERS, "listeners that require neither a password nor a client certificate"),
    "tls_without_verify": ("list(string)", ask.LISTENERS, "TLS listeners without `verify_peer`"),
    "tls_without_required_certificate": (
        "list(string)", ask.LISTENERS, "TLS listeners without `fail_if_no_peer_cert`"),
    "tls_without_crl": ("list(string)", ask.LISTENERS, "TLS listeners without `enable_crl_check`"),
    "tls_with_old_versions": ("list(string)", ask.LISTENERS, "TLS listeners that accept TLS 1.1 or older"),
    "authenticators": ("list(string)", ask.AUTHENTICATION, "enabled authenticators, in order"),
    "authz_sources": ("list(string)", ask.SOURCES, "enabled authorization sources, in order"),
    "file_allows_all": ("bool", ask.FILE_RULES, "whether the file source allows everything to all clients"),
    "authz_no_match": ("string", ask.AUTHORIZATION, "`allow` or `deny`: the decision if no rule matches"),
    "authz_cache_seconds": ("int", ask.AUTHORIZATION, "how long an access decision is cached; 0: not at all"),
    "wide_rules_for_all": ("list(string)", ask.RULES_FOR_ALL, "rules for all clients that allow `#` or `+/#`"),
    "client_id_source": ("string", ask.ZONE, "`peer_cert_as_clientid`: `cn` takes the client id from the certificate"),
    "wildcard_client_id_banned": (
        "bool", ask.WILDCARD_BAN, "whether the client id `+`, a wildcard in rules, is banned for ever"),
    "passwords_by_client_id": (
        "bool", ask.AUTHENTICATION, "whether every authenticator checks the password or token of the client id"),
    "username_as_client_id": ("bool", ask.ZONE, "whether the user name becomes the client id"),
    "max_inflight": ("int", ask.ZONE, "`mqtt.max_inflight`: unacknowledged messages of a client"),
    "max_queue": ("int", ask.ZONE, "`mqtt.max_mqueue_len`: messages queued for a disconnected client; 0: no limit"),
    "queue_outgrows_heap": (
        "bool", ask.ZONE, "whether a queue of `mqtt.max_mqueue_len` reports outgrows `force_shutdown.max_heap_size`"),
    "session_expiry_seconds": ("int", ask.ZONE, "`mqtt.session_expiry_interval`"),
    "flapping_detection": ("bool", ask.ZONE, "whether EMQX bans clients that connect too often, before authentication"),
    "controller_zone": (
        "string", ask.CONTROLLER_ZONE, "zone of the controller's listener; `default`: that of all clients"),
    "controller_max_inflight": ("int", ask.CONTROLLER_ZONE, "`mqtt.max_inflight` of that zone"),
    "controller_max_queue": ("int", ask.CONTROLLER_ZONE, "`mqtt.max_mqueue_len` of that zone; 0: no limit"),
    "controller_queue_outgrows_heap": (
        "bool", ask.CONTROLLER_ZONE, "whether EMQX ends the controller's session before its queue is full"),
    "auto_subscribe_topics": (
        "list(string)", ask.AUTO_SUBSCRIBE, "subscriptions that EMQX makes for every client, whatever the rules say"),
    "events_within_namespace": (
        "bool", ask.RULE_ENGINE, "`rule_engine.limit_selects_in_namespace`, which keeps some events from EMQX's rules"),
    "default_cookie": ("bool", ask.NODE_CONFIG, "whether nodes authenticate each other by EMQX's default cookie"),
    "nodes_disagree": ("list(string)", ask.COUNTS, "nodes with their numbers of bans and rules, if these differ"),
    "default_dashboard_login": ("bool", ask.LOGIN, "whether the dashboard accepts admin/public"),
    "api_keys_without_end": ("list(string)", ask.API_KEYS, "enabled API keys that never expire"),
    "api_keys_older_than_a_year": ("list(string)", ask.API_KEYS, "enabled API keys made more than a year ago"),
    "administrator_api_keys": ("list(string)", ask.API_KEYS, "enabled API keys with all permissions"),
    "certificate_days_left": (
        "int", ask.CERTIFICATES, "days until the first certificate of a TLS listener expires, by a handshake"),
}  # fmt: skip
TYPES: Final = {name: kind for name, (kind, _, _) in CATALOGUE.items()}
_FACTS_OF: Final = {
    source: tuple(name for name, (_, owner, _) in CATALOGUE.items() if owner == source)
    for _, source, _ in CATALOGUE.values()
}
FactReader = Callable[[Any, BrokerInspection], Mapping[str, Any]]
_READERS: Final[dict[str, FactReader]] = {
    ask.NODES: read_nodes,
    ask.LISTENERS: read_listeners,
    ask.AUTHENTICATION: read_authentication,
    ask.SOURCES: read_sources,
    ask.FILE_RULES: read_file_rules,
    ask.AUTHORIZATION: read_authorization,
    ask.RULES_FOR_ALL: read_rules_for_all,
    ask.ZONE: read_zone,
    ask.CONTROLLER_ZONE: read_controller_zone,
    ask.AUTO_SUBSCRIBE: read_auto_subscribe,
    ask.RULE_ENGINE: read_rule_engine,
    ask.WILDCARD_BAN: read_wildcard_ban,
    ask.NODE_CONFIG: read_node_config,
    ask.COUNTS: read_counts,
    ask.LOGIN: read_login,
    ask.API_KEYS: read_api_keys,
    ask.CERTIFICATES: read_certificates,
    ask.SHARE_GROUP: read_share_group,
}


def gather_broker_facts(inspection: BrokerInspection) -> DeviceFacts:
    """Returns the facts of a broker, with a reason for each missing one."""
    known: dict[str, Any] = {
        "controller_receive_maximum": inspection.receive_maximum,
        "shares_messages": inspection.is_shared,
        "plain_api_addresses": [address for address in inspection.api if _is_plain(address)],
    }
    missing: dict[str, MissingFact] = {}
    for source, read in _READERS.items():
        if source not in inspection.answers:
            reason = MissingFact(RuleResult.UNKNOWN, f"{source}: {inspection.silence.get(source, 'not requested')}")
            missing.update(dict.fromkeys(_FACTS_OF[source], reason))
            continue
        try:
            facts = read(inspection.answers[source], inspection)
        except (TypeError, KeyError, AttributeError, ValueError) as e:
            facts = dict.fromkeys(_FACTS_OF[source], FactUnavailableError(f"unexpected response ({type(e).__name__})"))
        for fact in _FACTS_OF[source]:
            value = facts.get(fact, FactUnavailableError("not reported by this version of EMQX"))
            if isinstance(value, FactUnavailableError):
                missing[fact] = MissingFact(value.result, f"{fact}: {value}")
            else:
                known[fact] = value
    return DeviceFacts(known, missing, _partial(inspection, known))


def _partial(inspection: BrokerInspection, known: Mapping[str, Any]) -> dict[str, str]:
    """Returns facts that are incomplete, and why."""
    partial: dict[str, str] = {}
    incomplete = missing_tls_settings(inspection.answers.get(ask.LISTENERS))
    if incomplete:
        for fact in _FACTS_OF[ask.LISTENERS]:
            if fact.startswith("tls_") and fact in known:
                partial[fact] = f"{fact}: the TLS settings of {', '.join(incomplete)} are not reported"
    errors = [each.trouble for each in inspection.answers.get(ask.CERTIFICATES, ()) if each.trouble]
    if errors and "certificate_days_left" in known:
        partial["certificate_days_left"] = f"certificate_days_left: {errors[0]}"
    return partial


def _is_plain(address: str) -> bool:
    host = address.partition("://")[2].rpartition(":")[0] or address.partition("://")[2]
    return address.startswith("http://") and not ask.is_loopback(host.strip("[]"))
