"""State that all nodes of the stand-in share, in place of EMQX's replicated tables."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.standin.authz import AuthzRuleStore
from controller.standin.bans import BanList
from controller.standin.client import Client, Scheduler
from controller.standin.dashboard import Dashboard
from controller.standin.event_rules import CONNACK, EventRule
from controller.standin.messages import Message
from controller.standin.release import EMQX_5_8, EmqxRelease, SecurityProfile
from controller.standin.settings import GLOBAL_ZONE, Settings
from controller.standin.zones import MqttLimits


@dataclass(frozen=True, slots=True)
class User:
    """A user of the built-in database, with the digest of the password."""

    user_id: str
    salt: bytes
    digest: bytes
    is_superuser: bool = False

    def accepts(self, password: bytes) -> bool:
        """Verifies a password."""
        return hmac.compare_digest(self.digest, digest(password, self.salt))


def digest(password: bytes, salt: bytes) -> bytes:
    """Returns SHA-256 of password and salt, EMQX's default; a stand-in has disposable passwords only."""
    return hashlib.sha256(password + salt).digest()


_ALLOW_ALL = re.compile(r"^[ \t]*\{\s*allow\s*,\s*all\s*\}\s*\.", re.MULTILINE)
_ALLOW_LEGACY = re.compile(r"^[ \t]*\{\s*allow\s*,\s*\{\s*security_profile\s*,\s*legacy\s*\}\s*\}\s*\.", re.MULTILINE)


@dataclass(slots=True)
class FileAuthzSource:
    """The authorization source `file`; of its rules, the stand-in implements only those that allow everything."""

    enabled: bool
    rules: str

    def allows_all(self, profile: SecurityProfile) -> bool:
        """Whether the source is enabled and allows everything under this security profile."""
        is_legacy = profile == "legacy" and _ALLOW_LEGACY.search(self.rules) is not None
        return self.enabled and (is_legacy or _ALLOW_ALL.search(self.rules) is not None)


@dataclass(slots=True)
class NodeState:
    """A node of the cluster."""

    name: str
    started_at: float
    running: bool = True
    frozen: bool = False  # its process was stopped
    hung: bool = False  # the same, and the cluster has not given it up yet
    mqtt: tuple[str, int] | None = None
    tls: tuple[str, int] | None = None
    api: tuple[str, int] | None = None
    # (table, owner) of rows that this node's API omits, as if their replication had failed.
    hidden: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class ClusterState:
    """The tables of the cluster; `now` returns Unix time."""

    now: Callable[[], float]
    call_later: Scheduler
    randbytes: Callable[[int], bytes]
    release: EmqxRelease = EMQX_5_8
    settings: Settings = field(default_factory=Settings)
    security_profile: SecurityProfile = "legacy"  # of 6.3
    api_scopes: frozenset[str] | None = None  # of the API key; None: all
    rule_engine: dict[str, Any] = field(default_factory=dict)  # what the section shows besides its defaults
    max_sessions: int | None = None  # of the licence
    event_rules: dict[str, EventRule] = field(default_factory=dict)  # by id
    publish: Callable[[Message], object] = lambda _message: None  # routes a message; set by the router
    bans: BanList = field(default_factory=BanList)
    rules: AuthzRuleStore = field(default_factory=AuthzRuleStore)
    authz_source: bool | None = True  # None: the source was deleted; False: disabled
    file_source: FileAuthzSource | None = None
    file_first: bool = False
    dashboard: Dashboard = field(default_factory=lambda: Dashboard("admin", secrets.token_urlsafe(16)))
    # Values that the API reports for listeners (by id) and nodes (by name) in place of the real ones.
    listener_overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    version_overrides: dict[str, str] = field(default_factory=dict)
    auto_subscribe: list[dict[str, Any]] = field(default_factory=list)  # rows of `/mqtt/auto_subscribe`
    users: dict[str, User] = field(default_factory=dict)
    authn: bool | None = None  # None: no authenticator; False: the authenticator is disabled
    clients: dict[str, Client] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    # Called once no node is hung any more: answers and effects that wait for one.
    waiting: list[Callable[[], None]] = field(default_factory=list)
    _sequence: int = 0

    def message_id(self) -> str:
        """Returns a new message id: 32 hex digits that increase with time, as EMQX's."""
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
        return f"{int(self.now() * 1_000_000):016X}0000{self._sequence:08X}0000"

    def emit(self, name: str, node: str, event: Mapping[str, Any]) -> None:
        """Publishes what the rules make of an event at a node."""
        if not self.event_rules or (name == CONNACK and self._hides_connack()):
            return
        now = self.now()
        event_name = name.removeprefix("$events/").replace("_", ".", 1)
        whole = {**event, "event": event_name, "node": node, "timestamp": int(now * 1000)}
        for rule in list(self.event_rules.values()):
            for action, row in rule.rows(name, node, whole):
                topic, payload = action.message(row)
                self.publish(Message(self.message_id(), topic, payload, action.qos, action.retain, rule.id, None, now))

    def _hides_connack(self) -> bool:
        """As observed on 6.2 and 6.3."""
        section = {**self.release.rule_engine, **self.rule_engine}
        return bool(section.get("limit_selects_in_namespace", False))

    def add_user(self, user_id: str, password: str, *, is_superuser: bool = False) -> User:
        """Adds or replaces a user."""
        salt = self.randbytes(16)
        user = User(user_id, salt, digest(password.encode(), salt), is_superuser)
        self.users[user_id] = user
        return user

    def asks_authenticators(self, listener: str) -> bool:
        """Whether the listener has `enable_authn`."""
        return self.listener_overrides.get(listener, {}).get("enable_authn", True) is not False

    def limits_of(self, listener: str) -> MqttLimits:
        """Returns the limits of a new connection to this listener, by its zone."""
        return self.settings.limits(str(self.listener_overrides.get(listener, {}).get("zone", GLOBAL_ZONE)))

    def is_hung(self, name: str | None = None) -> bool:
        """Whether the node hangs; without a name, whether any does."""
        return any(node.hung for node in self.nodes.values() if name in (None, node.name))

    def running_nodes(self) -> list[str]:
        """Returns the names of the running nodes, in order."""
        return [node.name for node in self.nodes.values() if node.running]
