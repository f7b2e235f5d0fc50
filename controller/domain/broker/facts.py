"""Turns what a broker told of itself into the flat, typed facts that broker policies speak of. Pure.

What the API key may not read, or this EMQX does not tell, is missing with its reason: never a pass.
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
    read_certificates,
    read_counts,
    read_file_rules,
    read_listeners,
    read_login,
    read_node_config,
    read_nodes,
    read_rules_for_all,
    read_sources,
    read_zone,
)
from controller.domain.broker.inspection import BrokerInspection
from controller.domain.policy.facts import DeviceFacts, MissingFact
from controller.domain.policy.findings import RuleResult

# Every fact of a broker: its type, what it is read from ("" for what the controller knows), its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "controller_receive_maximum": ("int", "", "messages the controller wants in flight, `[mqtt] receive_maximum`"),
    "plain_api_addresses": ("list(string)", "", "addresses of EMQX's API in `[emqx] api` without TLS, beyond loopback"),
    "versions": ("list(string)", ask.NODES, "EMQX versions of the running nodes, each once"),
    "nodes_not_running": ("list(string)", ask.NODES, "members of the cluster that do not run"),
    "node_port_clashes": ("list(string)", ask.NODES, "nodes of one host that want the same discovery port"),
    "plain_listeners": ("list(string)", ask.LISTENERS, "enabled listeners without TLS, beyond loopback"),
    "anonymous_listeners": (
        "list(string)", ask.LISTENERS, "listeners that ask for neither a password nor a client certificate"),
    "tls_without_verify": ("list(string)", ask.LISTENERS, "TLS listeners without `verify_peer`"),
    "tls_without_required_certificate": (
        "list(string)", ask.LISTENERS, "TLS listeners without `fail_if_no_peer_cert`"),
    "tls_without_crl": ("list(string)", ask.LISTENERS, "TLS listeners without `enable_crl_check`"),
    "tls_with_old_versions": ("list(string)", ask.LISTENERS, "TLS listeners that take TLS 1.1 or older"),
    "authenticators": ("list(string)", ask.AUTHENTICATION, "enabled authenticators, in order"),
    "authz_sources": ("list(string)", ask.SOURCES, "enabled authorization sources, in order"),
    "file_allows_all": ("bool", ask.FILE_RULES, "whether the file source lets everybody do everything"),
    "authz_no_match": ("string", ask.AUTHORIZATION, "`allow` or `deny`: what happens when no rule matches"),
    "authz_cache_seconds": ("int", ask.AUTHORIZATION, "how long an access decision is remembered; 0: not at all"),
    "wide_rules_for_all": ("list(string)", ask.RULES_FOR_ALL, "rules for everybody that allow `#` or `+/#`"),
    "client_id_source": ("string", ask.ZONE, "`peer_cert_as_clientid`: `cn` takes the client id from the certificate"),
    "username_as_client_id": ("bool", ask.ZONE, "whether the user name becomes the client id"),
    "max_inflight": ("int", ask.ZONE, "`mqtt.max_inflight`: unacknowledged messages a client gets"),
    "max_queue": ("int", ask.ZONE, "`mqtt.max_mqueue_len`: messages kept for an absent client; 0: without limit"),
    "session_expiry_seconds": ("int", ask.ZONE, "`mqtt.session_expiry_interval`"),
    "flapping_detection": ("bool", ask.ZONE, "whether EMQX bans who connects too often, before it asks who it is"),
    "default_cookie": ("bool", ask.NODE_CONFIG, "whether nodes trust each other by the cookie every EMQX comes with"),
    "nodes_disagree": ("list(string)", ask.COUNTS, "nodes with their rows of bans and rules, if they differ"),
    "default_dashboard_login": ("bool", ask.LOGIN, "whether admin/public is let into the dashboard"),
    "api_keys_without_end": ("list(string)", ask.API_KEYS, "enabled API keys that never expire"),
    "api_keys_older_than_a_year": ("list(string)", ask.API_KEYS, "enabled API keys made more than a year ago"),
    "administrator_api_keys": ("list(string)", ask.API_KEYS, "enabled API keys that may do everything"),
    "certificate_days_left": (
        "int", ask.CERTIFICATES, "days until the first certificate of a TLS listener ends, by a handshake"),
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
    ask.NODE_CONFIG: read_node_config,
    ask.COUNTS: read_counts,
    ask.LOGIN: read_login,
    ask.API_KEYS: read_api_keys,
    ask.CERTIFICATES: read_certificates,
}


def gather_broker_facts(seen: BrokerInspection) -> DeviceFacts:
    """The facts of a broker, with a reason for each that is not known."""
    known: dict[str, Any] = {
        "controller_receive_maximum": seen.receive_maximum,
        "plain_api_addresses": [one for one in seen.api if _is_plain(one)],
    }
    missing: dict[str, MissingFact] = {}
    for source, read in _READERS.items():
        if source not in seen.answers:
            why = MissingFact(RuleResult.UNKNOWN, f"{source}: {seen.silence.get(source, 'not asked')}")
            missing.update(dict.fromkeys(_FACTS_OF[source], why))
            continue
        try:
            found = read(seen.answers[source], seen)
        except (TypeError, KeyError, AttributeError, ValueError) as e:
            found = dict.fromkeys(
                _FACTS_OF[source], FactUnavailableError(f"an answer of another shape ({type(e).__name__})")
            )
        for fact in _FACTS_OF[source]:
            value = found.get(fact, FactUnavailableError("this EMQX does not tell"))
            if isinstance(value, FactUnavailableError):
                missing[fact] = MissingFact(value.result, f"{fact}: {value}")
            else:
                known[fact] = value
    return DeviceFacts(known, missing, _partial(seen, known))


def _partial(seen: BrokerInspection, known: Mapping[str, Any]) -> dict[str, str]:
    """Facts of which only a part was seen: what they show is true, what they do not show may be."""
    partial: dict[str, str] = {}
    untold = missing_tls_settings(seen.answers.get(ask.LISTENERS))
    if untold:
        for fact in _FACTS_OF[ask.LISTENERS]:
            if fact.startswith("tls_") and fact in known:
                partial[fact] = f"{fact}: the TLS settings of {', '.join(untold)} are not told"
    troubles = [one.trouble for one in seen.answers.get(ask.CERTIFICATES, ()) if one.trouble]
    if troubles and "certificate_days_left" in known:
        partial["certificate_days_left"] = f"certificate_days_left: {troubles[0]}"
    return partial


def _is_plain(address: str) -> bool:
    host = address.partition("://")[2].rpartition(":")[0] or address.partition("://")[2]
    return address.startswith("http://") and not ask.is_loopback(host.strip("[]"))
