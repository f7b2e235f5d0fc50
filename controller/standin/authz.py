"""Access rules of EMQX's built-in database, their evaluation, and the authorization cache of a client. Pure."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from controller.standin.options import AUTHZ_CACHE_ENTRIES, AUTHZ_CACHE_SECONDS
from controller.standin.topics import matches

EQ_PREFIX = "eq "
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_KNOWN = frozenset({"clientid", "username", "cert_common_name", "peerhost", "zone"})
_SPECIAL = frozenset("/+#")


class Verdict(StrEnum):
    """The result of an access check."""

    ALLOW = "allow"
    DENY = "deny"


class ActionType(StrEnum):
    """The kind of a client's action."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True)
class AuthzAction:
    """A client's action; `retain` is None for a subscription."""

    type: ActionType
    qos: int
    retain: bool | None = None


@dataclass(frozen=True, slots=True)
class AuthzRule:
    """An access rule."""

    permission: Verdict
    action: Literal["publish", "subscribe", "all"]
    topic: str
    qos: tuple[int, ...] = (0, 1, 2)
    retain: bool | Literal["all"] = "all"


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What a client is checked by: the client id, the user name, the certificate's common name and the peer address."""

    clientid: str
    username: str | None
    cert_common_name: str | None = None
    peerhost: str = ""


def render(template: str, identity: ClientIdentity, *, plus_is_wildcard: bool = True) -> str | None:
    """Replaces the placeholders in a rule's topic; returns None when the rule cannot match.

    A word with a placeholder stays one word: the rule matches nothing when a value is missing or has a `/`, `+` or `#`.
    The exception is the word `+`, which EMQX 5.8.9 takes for the wildcard (`plus_is_wildcard`) and 6.3 does not.
    """
    values: Mapping[str, str | None] = {
        "clientid": identity.clientid,
        "username": identity.username,
        "cert_common_name": identity.cert_common_name,
        "peerhost": identity.peerhost,
        "zone": "default",
    }
    words: list[str] = []
    for word in template.split("/"):
        names = [name for name in _PLACEHOLDER.findall(word) if name in _KNOWN]
        if any(values[name] is None for name in names):
            return None
        filled = _PLACEHOLDER.sub(lambda match: str(values.get(match.group(1), match.group(0))), word)
        if names and not _SPECIAL.isdisjoint(filled) and not (filled == "+" and plus_is_wildcard):
            return None
        words.append(filled)
    return "/".join(words)


def rule_matches(
    rule: AuthzRule, identity: ClientIdentity, action: AuthzAction, topic: str, *, plus_is_wildcard: bool = True
) -> bool:
    """Whether the rule matches the action; see `render` for `plus_is_wildcard`."""
    if rule.action not in ("all", action.type.value):
        return False
    if action.qos not in rule.qos:
        return False
    if action.retain is not None and rule.retain not in ("all", action.retain):
        return False
    if rule.topic.startswith(EQ_PREFIX):
        return render(rule.topic[len(EQ_PREFIX) :], identity, plus_is_wildcard=plus_is_wildcard) == topic
    pattern = render(rule.topic, identity, plus_is_wildcard=plus_is_wildcard)
    return pattern is not None and matches(topic, pattern)


def evaluate(
    rules: Iterable[AuthzRule],
    identity: ClientIdentity,
    action: AuthzAction,
    topic: str,
    *,
    plus_is_wildcard: bool = True,
) -> Verdict | None:
    """Returns the permission of the first matching rule; None without one."""
    for rule in rules:
        if rule_matches(rule, identity, action, topic, plus_is_wildcard=plus_is_wildcard):
            return rule.permission
    return None


@dataclass(slots=True)
class AuthzRuleStore:
    """All rules of the cluster; evaluated in EMQX's order: client, user, all."""

    clients: dict[str, tuple[AuthzRule, ...]] = field(default_factory=dict)
    users: dict[str, tuple[AuthzRule, ...]] = field(default_factory=dict)
    everybody: tuple[AuthzRule, ...] = ()

    def decide(
        self, identity: ClientIdentity, action: AuthzAction, topic: str, *, plus_is_wildcard: bool = True
    ) -> Verdict | None:
        """Returns the verdict of the rules; None when no rule matches and the setting `no_match` decides."""
        own = self.clients.get(identity.clientid, ())
        user = () if identity.username is None else self.users.get(identity.username, ())
        return evaluate((*own, *user, *self.everybody), identity, action, topic, plus_is_wildcard=plus_is_wildcard)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cached verdict; `at` is Unix time."""

    verdict: Verdict
    at: float


@dataclass(slots=True)
class AuthzCache:
    """Caches verdicts of one connection, for a minute by default; a new rule applies only after that."""

    max_size: int = AUTHZ_CACHE_ENTRIES
    ttl: float = AUTHZ_CACHE_SECONDS
    entries: OrderedDict[tuple[AuthzAction, str], CacheEntry] = field(default_factory=OrderedDict)

    def get(self, action: AuthzAction, topic: str, now: float) -> Verdict | None:
        """Returns the cached verdict; None when there is none or it has expired."""
        key = (action, topic)
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now - entry.at >= self.ttl:
            del self.entries[key]
            return None
        return entry.verdict

    def put(self, action: AuthzAction, topic: str, verdict: Verdict, now: float) -> None:
        """Caches a verdict; a full cache drops its oldest entry."""
        key = (action, topic)
        self.entries.pop(key, None)
        while len(self.entries) >= self.max_size:
            self.entries.popitem(last=False)
        self.entries[key] = CacheEntry(verdict, now)

    def rows(self, now: float) -> list[tuple[AuthzAction, str, CacheEntry]]:
        """Returns the entries that have not expired, newest first, as EMQX lists them."""
        entries = [(k[0], k[1], e) for k, e in self.entries.items() if now - e.at < self.ttl]
        return entries[::-1]

    def clear(self) -> None:
        """Removes all entries."""
        self.entries.clear()
