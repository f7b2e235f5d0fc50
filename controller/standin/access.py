"""Decides who may connect, publish and subscribe, in EMQX's order of checks."""

from controller.standin.authz import ActionType, AuthzAction, ClientIdentity, Verdict
from controller.standin.client import Client
from controller.standin.state import ClusterState
from controller.standin.topics import DELAYED_PREFIX, matches
from controller.standin.zones import seconds

BANNED, NOT_AUTHORIZED, BAD_CREDENTIALS = 138, 135, 134


def check_connect(
    state: ClusterState, identity: ClientIdentity, password: bytes | None, listener: str
) -> tuple[int, bool]:
    """Returns the CONNACK reason (0: accepted) and whether the user is a superuser.

    Bans are checked before the password. A missing password is a wrong password, also on a listener that demands
    certificates, unless the listener has `enable_authn = false`; a user unknown to all authenticators is
    "not authorized".
    """
    if state.bans.is_banned(identity.clientid, identity.username, identity.peerhost, state.now()):
        return BANNED, False
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
    if topic.startswith(DELAYED_PREFIX):
        _, _, real = topic[len(DELAYED_PREFIX) :].partition("/")
        return _evaluate(state, client, action, real) if real else Verdict.DENY
    settings = state.settings.authz["cache"]
    is_cached = state.release.caches_subscribe or action.type is not ActionType.SUBSCRIBE
    if not settings["enable"] or not is_cached or _bypasses_cache(topic, settings["excludes"]):
        return _evaluate(state, client, action, topic)
    now = state.now()
    verdict = client.cache.get(action, topic, now)
    if verdict is None:
        client.cache.max_size = int(settings["max_size"])
        client.cache.ttl = seconds(settings["ttl"])
        verdict = _evaluate(state, client, action, topic)
        client.cache.put(action, topic, verdict, now)
    return verdict


def _bypasses_cache(topic: str, excludes: list[str]) -> bool:
    return any(matches(topic, pattern) for pattern in excludes)


def _evaluate(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> Verdict:
    if client.is_superuser:
        return Verdict.ALLOW
    allows_all = state.file_source is not None and state.file_source.allows_all(state.security_profile)
    if allows_all and state.file_first:
        return Verdict.ALLOW
    verdict = None
    if state.authz_source:
        plus = state.release.plus_is_wildcard
        verdict = state.rules.decide(client.identity, action, topic, plus_is_wildcard=plus)
    return verdict or (Verdict.ALLOW if allows_all else Verdict(state.settings.authz["no_match"]))
