"""Decides who may connect and who may publish or subscribe, in EMQX's order of checks."""

from controller.standin.authz import AuthzAction, ClientIdentity, Verdict
from controller.standin.client import Client
from controller.standin.settings import seconds
from controller.standin.state import ClusterState
from controller.standin.topics import DELAYED_PREFIX, matches

BANNED, NOT_AUTHORIZED, BAD_CREDENTIALS = 138, 135, 134


def refuse_connect(state: ClusterState, who: ClientIdentity, password: bytes | None) -> tuple[int, bool]:
    """The CONNACK reason (0: may connect) and whether the user is a superuser.

    A ban is asked about before the password. No password at all is a wrong
    one; a user the chain does not know ends as "not authorized".
    """
    if state.bans.refuses(who.clientid, who.username, who.peerhost, state.now()):
        return BANNED, False
    if state.authn is None:
        return 0, False
    if not state.authn:
        return NOT_AUTHORIZED, False
    if password is None:
        return BAD_CREDENTIALS, False
    user = None if who.username is None else state.users.get(who.username)
    if user is None:
        return NOT_AUTHORIZED, False
    if not user.accepts(password):
        return BAD_CREDENTIALS, False
    return 0, user.is_superuser


def authorize(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> Verdict:
    """Ask the cache, the rules and the `no_match` setting, in that order."""
    if topic.startswith(DELAYED_PREFIX):
        _, _, real = topic[len(DELAYED_PREFIX) :].partition("/")
        return _decide(state, client, action, real) if real else Verdict.DENY
    settings = state.settings.authz["cache"]
    if not settings["enable"] or _excluded(topic, settings["excludes"]):
        return _decide(state, client, action, topic)
    now = state.now()
    verdict = client.cache.get(action, topic, now)
    if verdict is None:
        client.cache.max_size = int(settings["max_size"])
        client.cache.ttl = seconds(settings["ttl"])
        verdict = _decide(state, client, action, topic)
        client.cache.put(action, topic, verdict, now)
    return verdict


def _excluded(topic: str, excludes: list[str]) -> bool:
    return any(matches(topic, pattern) for pattern in excludes)


def _decide(state: ClusterState, client: Client, action: AuthzAction, topic: str) -> Verdict:
    if client.is_superuser:
        return Verdict.ALLOW
    allows_all = state.file_source is not None and state.file_source.allows_all
    if allows_all and state.file_first:
        return Verdict.ALLOW
    found = state.rules.decide(client.identity, action, topic) if state.authz_source else None
    return found or (Verdict.ALLOW if allows_all else Verdict(state.settings.authz["no_match"]))
