"""Decides who may connect, publish and subscribe, in EMQX's order of checks."""

from typing import Final

from controller.standin.authz import ActionType, AuthzAction, ClientIdentity, Verdict
from controller.standin.client import Client, ClientEndpoint
from controller.standin.event_rules import AUTHN, AUTHZ
from controller.standin.state import ClusterState
from controller.standin.topics import DELAYED_PREFIX, matches
from controller.standin.zones import seconds

BANNED, NOT_AUTHORIZED, BAD_CREDENTIALS = 138, 135, 134
CONNACK_NAMES: Final = {
    0: "success", 130: "protocol_error", 132: "unsupported_protocol_version", 133: "client_identifier_not_valid",
    134: "bad_username_or_password", 135: "not_authorized", 137: "server_busy", 138: "banned",
    144: "topic_name_invalid", 151: "quota_exceeded", 155: "qos_not_supported",
}  # fmt: skip


def check_connect(
    state: ClusterState, identity: ClientIdentity, password: bytes | None, endpoint: ClientEndpoint
) -> tuple[int, bool]:
    """Returns the CONNACK reason (0: accepted) and whether the user is a superuser.

    Bans are checked before the password. A missing password is a wrong password, also on a listener that demands
    certificates, unless the listener has `enable_authn = false`; a user unknown to all authenticators is
    "not authorized".
    """
    if state.bans.is_banned(identity.clientid, identity.username, identity.peerhost, state.now()):
        return BANNED, False
    code, superuser = _authenticate(state, identity, password, endpoint.listener)
    event = {
        "clientid": identity.clientid,
        "username": shown_name(identity.username),
        "peername": endpoint.peername,
        "reason_code": CONNACK_NAMES[code],
        "is_superuser": superuser,
        "is_anonymous": not code and not (state.authn and state.asks_authenticators(endpoint.listener)),
        "client_attrs": {},
    }
    state.emit(AUTHN, endpoint.node, event)
    return code, superuser


def shown_name(username: str | None) -> str:
    """Returns a user name as EMQX shows it in events."""
    return "undefined" if username is None else username


def _authenticate(
    state: ClusterState, identity: ClientIdentity, password: bytes | None, listener: str
) -> tuple[int, bool]:
    if not state.asks_authenticators(listener):
        return 0, False
    if state.authn is None:
        return (NOT_AUTHORIZED if state.security_profile == "hardened" else 0), False
    if not state.authn:
        return NOT_AUTHORIZED, False
    if password is None:
        return BAD_CREDENTIALS, False
    user = None if identity.username is None else state.users.get(identity.username)
    if user is None:
        return NOT_AUTHORIZED, False
    if not user.accepts(password):
        return BAD_CREDENTIALS, False
    return 0, user.is_superuser


def authorize(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> Verdict:
    """Decides by the cache, the rules and the `no_match` setting, in this order."""
    verdict, source = _decide(state, client, action, topic)
    if not state.event_rules:
        return verdict
    event: dict[str, object] = {
        "clientid": client.clientid,
        "username": shown_name(client.identity.username),
        "peerhost": client.endpoint.peerhost,
        "topic": topic,
        "action": action.type.value,
        "authz_source": source,
        "result": verdict.value,
        "client_attrs": {},
    }
    state.emit(AUTHZ, client.endpoint.node, event)
    return verdict


def _decide(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> tuple[Verdict, str]:
    """Returns the verdict and what it comes from."""
    if topic.startswith(DELAYED_PREFIX):
        _, _, real = topic[len(DELAYED_PREFIX) :].partition("/")
        return _evaluate(state, client, action, real) if real else (Verdict.DENY, "default")
    settings = state.settings.authz["cache"]
    is_cached = state.release.caches_subscribe or action.type is not ActionType.SUBSCRIBE
    if not settings["enable"] or not is_cached or _bypasses_cache(topic, settings["excludes"]):
        return _evaluate(state, client, action, topic)
    now = state.now()
    cached = client.cache.get(action, topic, now)
    if cached is not None:
        return cached, "cache"
    client.cache.max_size = int(settings["max_size"])
    client.cache.ttl = seconds(settings["ttl"])
    verdict, source = _evaluate(state, client, action, topic)
    client.cache.put(action, topic, verdict, now)
    return verdict, source


def _bypasses_cache(topic: str, excludes: list[str]) -> bool:
    return any(matches(topic, pattern) for pattern in excludes)


def _evaluate(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> tuple[Verdict, str]:
    if client.is_superuser:
        return Verdict.ALLOW, "superuser"
    allows_all = state.file_source is not None and state.file_source.allows_all(state.security_profile)
    if allows_all and state.file_first:
        return Verdict.ALLOW, "file"
    verdict = None
    if state.authz_source:
        plus = state.release.plus_is_wildcard
        verdict = state.rules.decide(client.identity, action, topic, plus_is_wildcard=plus)
    if verdict is not None:
        return verdict, "built_in_database"
    return (Verdict.ALLOW, "file") if allows_all else (Verdict(state.settings.authz["no_match"]), "default")
