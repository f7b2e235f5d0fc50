"""EMQX's rows as they come over HTTP, validated, and their way into the port's values.

Fields that are not needed are ignored, and so are those that a later EMQX adds.
"""

import json
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from controller.ports.broker_tables import AccessRule, AccessRules, Ban
from controller.ports.errors import BrokerAnswerError
from schemas.base import clean_text

DATABASE: Final = "built_in_database"
FOREVER: Final = "infinity"
_ALL_QOS: Final = (0, 1, 2)
_FAULTS_SHOWN: Final = 3
_RULE_TEXT: Final = 4096  # characters of a rule that an operator is shown

T = TypeVar("T")


class EmqxRow(BaseModel):
    """What every row shares."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _words(value: object) -> object:
    # EMQX writes an Erlang atom: "all" is text, but true and false are JSON booleans.
    return json.dumps(value) if isinstance(value, bool) else value


class RuleRow(EmqxRow):
    """One access rule."""

    model_config = ConfigDict(frozen=True, extra="allow")
    topic: str
    permission: Literal["allow", "deny"]
    action: Literal["publish", "subscribe", "all"]
    qos: tuple[int, ...] = _ALL_QOS
    retain: Annotated[str, BeforeValidator(_words)] = "all"

    def rule(self) -> AccessRule:
        """The port's value."""
        narrower = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        return AccessRule(
            topic=self.topic,
            permission=self.permission,
            action=self.action,
            qos=tuple(sorted(self.qos)),
            retain=self.retain,
            limits=json.dumps(narrower, sort_keys=True) if narrower else "",
        )


class RulesRow(EmqxRow):
    """The rules of all."""

    rules: tuple[RuleRow, ...] = ()


class ClientRulesRow(RulesRow):
    """The rules of one client."""

    clientid: str


class UserRulesRow(RulesRow):
    """The rules of one user."""

    username: str


class BanRow(EmqxRow):
    """One ban."""

    kind: str = Field(alias="as")
    who: str
    by: str = ""
    reason: str = ""
    at: datetime | int | None = None
    until: Literal["infinity"] | datetime | int = FOREVER

    def ban(self) -> Ban:
        """The port's value."""
        until = None if isinstance(self.until, str) else _seconds(self.until)
        at = 0.0 if self.at is None else _seconds(self.at)
        return Ban(kind=self.kind, who=self.who, by=self.by, reason=self.reason, at=at, until=until)


class ClientRow(EmqxRow):
    """A session, connected or away."""

    clientid: str
    connected: bool
    listener: str = ""
    node: str = ""
    username: str | None = None
    enable_authn: bool | str = True
    created_at: str = ""  # of the session: tells it from a later one of the same client id
    connected_at: datetime | None = None  # of the connection, by the clock of the node that has it

    @property
    def connected_since(self) -> float | None:
        """When it connected, Unix seconds."""
        return None if self.connected_at is None else _seconds(self.connected_at)


class SubscriptionRow(EmqxRow):
    """What a session listens to."""

    topic: str
    qos: int = 0
    nl: int = 0
    rap: int = 0
    rh: int = 0


class RetainedRow(EmqxRow):
    """A retained message, without its payload."""

    topic: str
    from_clientid: str = ""


class CacheRow(EmqxRow):
    """A decision that a client's connection remembers."""

    class Access(EmqxRow):
        """What was asked."""

        action_type: str

    access: Access
    topic: str
    result: str


class SourceRow(EmqxRow):
    """Whom EMQX asks for access, with all its settings, which are written back when one of them changes."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    enable: bool = True


class SourcesRow(EmqxRow):
    """All of them, in the order they are asked."""

    sources: tuple[SourceRow, ...]


class AuthenticatorRow(EmqxRow):
    """One link of the authentication chain."""

    id: str
    enable: bool = True
    backend: str = ""
    user_id_type: Literal["username", "clientid"] = "username"


class UserRow(EmqxRow):
    """A user of the built-in database."""

    is_superuser: bool = False


class TlsRow(EmqxRow):
    """How a TLS listener treats its clients."""

    verify: str = "verify_none"
    fail_if_no_peer_cert: bool = False


class ListenerRow(EmqxRow):
    """A listener; the listing leaves `ssl_options` out, the single one has them."""

    id: str
    type: str = ""
    enable: bool = True
    bind: str | int = ""
    zone: str = "default"
    enable_authn: bool | str = True
    ssl_options: TlsRow | None = None


class MqttRow(EmqxRow):
    """The part of the zone that decides who a client is."""

    peer_cert_as_clientid: str = "disabled"
    peer_cert_as_username: str = "disabled"


class ZoneRow(EmqxRow):
    """The global zone."""

    mqtt: MqttRow = MqttRow()


class NodeRow(EmqxRow):
    """A member of the cluster, running or not."""

    node: str
    node_status: str
    version: str = ""
    edition: str = ""


class ClusterRow(EmqxRow):
    """The cluster as one node sees it."""

    self: str = ""


class PageMeta(EmqxRow):
    """Where a page stands; bans tell no `hasnext`."""

    count: int | None = None
    hasnext: bool | None = None


class ListingPage(EmqxRow, Generic[T]):
    """One page of a listing."""

    data: tuple[T, ...]
    meta: PageMeta = PageMeta()


def faults(error: ValidationError) -> str:
    """What was wrong with a row, without the values that somebody else wrote into it."""
    shown = error.errors(include_url=False, include_context=False, include_input=False)[:_FAULTS_SHOWN]
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in shown)


def old_ban(message: str) -> Ban:
    """The row that was in the way, which EMQX puts as JSON into its `ALREADY_EXISTS` message.

    Raises:
        BrokerAnswerError: there is no row in it.
    """
    try:
        return BanRow.model_validate_json(message).ban()
    except ValidationError as e:
        raise BrokerAnswerError(f"the ban exists already, but EMQX did not say which: {faults(e)}") from e


def rule_body(rule: AccessRule) -> dict[str, object]:
    """A rule as EMQX takes it: what is default is left out, so that every version accepts it."""
    body: dict[str, object] = {"topic": rule.topic, "permission": rule.permission, "action": rule.action}
    if rule.qos != _ALL_QOS:
        body["qos"] = list(rule.qos)
    if rule.retain != "all":
        body["retain"] = rule.retain == "true"
    if rule.limits:
        body.update(json.loads(rule.limits))
    return body


def rules_of(row: RulesRow) -> AccessRules:
    """The port's value."""
    return tuple(rule.rule() for rule in row.rules)


def rule_text(rule: AccessRule) -> str:
    """A rule for an operator's eyes: `allow publish cordon/v1/edge-1/up/#`."""
    text = f"{rule.permission} {rule.action} {rule.topic}"
    if rule.qos != _ALL_QOS:
        text += f" qos {','.join(str(level) for level in rule.qos)}"
    if rule.retain != "all":
        text += f" retain {rule.retain}"
    return clean_text(f"{text} {rule.limits}".rstrip(), _RULE_TEXT)


def until_text(until: float | None) -> str:
    """A ban's end as EMQX takes it: whole seconds, never earlier than asked."""
    if until is None:
        return FOREVER
    return datetime.fromtimestamp(ceil(until), UTC).isoformat().replace("+00:00", "Z")


def _seconds(value: datetime | int) -> float:
    if isinstance(value, int):
        return float(value)
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
