"""Access rules as EMQX's built-in database evaluates them, and the per-client cache of the answers. Pure."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from controller.standin.limits import AUTHZ_CACHE_ENTRIES, AUTHZ_CACHE_SECONDS
from controller.standin.topics import matches

EQ_PREFIX = "eq "
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_KNOWN = frozenset({"clientid", "username", "cert_common_name", "peerhost", "zone"})


class Verdict(StrEnum):
    """The answer of an access check."""

    ALLOW = "allow"
    DENY = "deny"


class ActionType(StrEnum):
    """What a client wants to do."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True)
class AuthzAction:
    """One attempt; `retain` is None for a subscription."""

    type: ActionType
    qos: int
    retain: bool | None = None


@dataclass(frozen=True, slots=True)
class AuthzRule:
    """One rule row with its defaults filled in."""

    permission: Verdict
    action: Literal["publish", "subscribe", "all"]
    topic: str
    qos: tuple[int, ...] = (0, 1, 2)
    retain: bool | Literal["all"] = "all"


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who is checked."""

    clientid: str
    username: str | None
    cert_common_name: str | None = None
    peerhost: str = ""


def render(template: str, who: ClientIdentity) -> str | None:
    """Fill the placeholders of a rule's topic; None when one has no value, so the rule cannot match."""
    values: Mapping[str, str | None] = {
        "clientid": who.clientid,
        "username": who.username,
        "cert_common_name": who.cert_common_name,
        "peerhost": who.peerhost,
        "zone": "default",
    }
    missing = False

    def fill(found: re.Match[str]) -> str:
        nonlocal missing
        name = found.group(1)
        if name not in _KNOWN:
            return found.group(0)
        value = values[name]
        missing = missing or value is None
        return value or ""

    text = _PLACEHOLDER.sub(fill, template)
    return None if missing else text


def rule_matches(rule: AuthzRule, who: ClientIdentity, action: AuthzAction, topic: str) -> bool:
    """Whether this rule decides the attempt."""
    if rule.action not in ("all", action.type.value):
        return False
    if action.qos not in rule.qos:
        return False
    if action.retain is not None and rule.retain not in ("all", action.retain):
        return False
    if rule.topic.startswith(EQ_PREFIX):
        return render(rule.topic[len(EQ_PREFIX) :], who) == topic
    pattern = render(rule.topic, who)
    return pattern is not None and matches(topic, pattern)


def evaluate(rules: Iterable[AuthzRule], who: ClientIdentity, action: AuthzAction, topic: str) -> Verdict | None:
    """The first rule that matches decides; None when none does."""
    for rule in rules:
        if rule_matches(rule, who, action, topic):
            return rule.permission
    return None


@dataclass(slots=True)
class AuthzRuleStore:
    """All rules of the cluster, in EMQX's order of evaluation: client, user, everybody."""

    clients: dict[str, tuple[AuthzRule, ...]] = field(default_factory=dict)
    users: dict[str, tuple[AuthzRule, ...]] = field(default_factory=dict)
    everybody: tuple[AuthzRule, ...] = ()

    def decide(self, who: ClientIdentity, action: AuthzAction, topic: str) -> Verdict | None:
        """None when no rule matches, which leaves the decision to the `no_match` setting."""
        own = self.clients.get(who.clientid, ())
        user = () if who.username is None else self.users.get(who.username, ())
        return evaluate((*own, *user, *self.everybody), who, action, topic)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A remembered answer; `at` is wall-clock seconds."""

    verdict: Verdict
    at: float


@dataclass(slots=True)
class AuthzCache:
    """The reason a new rule does not bite at once: answers are kept for a minute for each connection."""

    max_size: int = AUTHZ_CACHE_ENTRIES
    ttl: float = AUTHZ_CACHE_SECONDS
    entries: OrderedDict[tuple[AuthzAction, str], CacheEntry] = field(default_factory=OrderedDict)

    def get(self, action: AuthzAction, topic: str, now: float) -> Verdict | None:
        """The remembered answer, or None when there is none or it is too old."""
        key = (action, topic)
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now - entry.at >= self.ttl:
            del self.entries[key]
            return None
        return entry.verdict

    def put(self, action: AuthzAction, topic: str, verdict: Verdict, now: float) -> None:
        """Remember an answer; the oldest one gives way."""
        key = (action, topic)
        self.entries.pop(key, None)
        while len(self.entries) >= self.max_size:
            self.entries.popitem(last=False)
        self.entries[key] = CacheEntry(verdict, now)

    def rows(self, now: float) -> list[tuple[AuthzAction, str, CacheEntry]]:
        """Living entries, newest first, as EMQX lists them."""
        living = [(k[0], k[1], e) for k, e in self.entries.items() if now - e.at < self.ttl]
        return living[::-1]

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
