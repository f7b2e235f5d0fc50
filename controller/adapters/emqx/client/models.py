"""EMQX's rows as they come over HTTP, validated, and their conversion to the port's values.

Fields that Cordon does not need are ignored, as are fields that a later EMQX adds.
"""

import json
from datetime import UTC, datetime
from functools import cache
from math import ceil
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from controller.adapters.emqx.client.http import ApiResponse
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
    model_config = ConfigDict(frozen=True, extra="ignore")


def _atom_text(value: object) -> object:
    # EMQX writes an Erlang atom: "all" is text, but true and false are JSON booleans.
    return json.dumps(value) if isinstance(value, bool) else value


class RuleRow(EmqxRow):
    model_config = ConfigDict(frozen=True, extra="allow")
    topic: str
    permission: Literal["allow", "deny"]
    action: Literal["publish", "subscribe", "all"]
    qos: tuple[int, ...] = _ALL_QOS
    retain: Annotated[str, BeforeValidator(_atom_text)] = "all"

    def rule(self) -> AccessRule:
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
    rules: tuple[RuleRow, ...] = ()


class ClientRulesRow(RulesRow):
    clientid: str


class UserRulesRow(RulesRow):
    username: str


class BanRow(EmqxRow):
    kind: str = Field(alias="as")
    who: str
    by: str = ""
    reason: str = ""
    at: datetime | int | None = None
    until: Literal["infinity"] | datetime | int = FOREVER

    def ban(self) -> Ban:
        until = None if isinstance(self.until, str) else _seconds(self.until)
        at = 0.0 if self.at is None else _seconds(self.at)
        return Ban(kind=self.kind, who=self.who, by=self.by, reason=self.reason, at=at, until=until)


class ClientRow(EmqxRow):
    """A session, with or without a connection."""

    clientid: str
    connected: bool
    listener: str = ""
    node: str = ""
    username: str | None = None
    enable_authn: bool | str = True
    created_at: str = ""  # of the session: distinguishes it from a later session of the same client id
    mqueue_len: int = 0  # messages that wait in its session
    connected_at: datetime | None = None  # of the connection, by the clock of its node

    @property
    def connected_since(self) -> float | None:
        """Unix seconds."""
        return None if self.connected_at is None else _seconds(self.connected_at)


class AccessSettingsRow(EmqxRow):
    no_match: str


class DelayedRow(EmqxRow):
    from_clientid: str = ""
    from_username: str | None = None


class RouteRow(EmqxRow):
    topic: str


class SubscriptionRow(EmqxRow):
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
    """An access decision in the cache of a client's connection."""

    class Access(EmqxRow):
        action_type: str

    access: Access
    topic: str
    result: str


class SourceRow(EmqxRow):
    """An authorization source with all its settings, which are written back when one of them changes."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    enable: bool = True


class SourcesRow(EmqxRow):
    """The authorization sources in the order in which EMQX consults them."""

    sources: tuple[SourceRow, ...]


class AuthenticatorRow(EmqxRow):
    """One authenticator of the authentication chain."""

    id: str
    enable: bool = True
    backend: str = ""
    user_id_type: Literal["username", "clientid"] = "username"
    mechanism: str = ""
    verify_claims: dict[str, str] | list[dict[str, str]] = {}

    @property
    def is_by_client_id(self) -> bool:
        """Whether it admits a client only with the password, or token, of its client id."""
        if self.mechanism == "jwt":
            return "${clientid}" in self._claims
        return self.backend == DATABASE and self.user_id_type == "clientid"

    @property
    def checks_username(self) -> bool:
        """Whether it admits a user name only with that one's password, or token."""
        if self.mechanism == "jwt":
            return "${username}" in self._claims
        return self.user_id_type == "username"

    @property
    def _claims(self) -> frozenset[str]:
        claims = self.verify_claims
        if isinstance(claims, dict):
            return frozenset(claims.values())
        return frozenset(row.get("value", "") for row in claims)


class UserRow(EmqxRow):
    """A user of the built-in authentication database."""

    is_superuser: bool = False


class TlsRow(EmqxRow):
    verify: str = "verify_none"
    fail_if_no_peer_cert: bool = False


class ListenerRow(EmqxRow):
    """A listener; `ssl_options` are only in the answer for a single listener, not in the listing."""

    id: str
    type: str = ""
    enable: bool = True
    bind: str | int = ""
    zone: str = "default"
    enable_authn: bool | str = True
    ssl_options: TlsRow | None = None


class MqttRow(EmqxRow):
    """The settings of a zone that decide about a client's identity."""

    peer_cert_as_clientid: str = "disabled"
    peer_cert_as_username: str = "disabled"
    use_username_as_clientid: bool = False


class ZoneRow(EmqxRow):
    mqtt: MqttRow = MqttRow()


class NodeRow(EmqxRow):
    """A member of the cluster, running or not."""

    node: str
    node_status: str
    version: str = ""
    edition: str = ""


class ClusterRow(EmqxRow):
    """The cluster as the answering node, `self`, sees it."""

    self: str = ""
    nodes: tuple[str, ...] = ()


class PageMeta(EmqxRow):
    """The position of a page in its listing; listings of bans have no `hasnext`."""

    count: int | None = None
    hasnext: bool | None = None


class ListingPage(EmqxRow, Generic[T]):
    data: tuple[T, ...]
    meta: PageMeta = PageMeta()


def parse(model: type[T], response: ApiResponse) -> T:
    """Validates the response's data.

    Raises:
        BrokerAnswerError: of the wrong shape.
    """
    try:
        chosen: Any = model  # a generic type does not count as hashable
        content: T = _adapter(chosen).validate_python(response.data)
    except ValidationError as e:
        raise BrokerAnswerError(f"{response.node}: an answer of the wrong shape: {validation_errors(e)}") from e
    return content


def validated(model: type[T], row: Any) -> T:
    """Validates one row of a listing.

    Raises:
        BrokerAnswerError: of the wrong shape.
    """
    try:
        chosen: Any = model
        content: T = _adapter(chosen).validate_python(row)
    except ValidationError as e:
        raise BrokerAnswerError(f"a row of the wrong shape: {validation_errors(e)}") from e
    return content


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)  # building one costs more than using it


def validation_errors(error: ValidationError) -> str:
    """Describes the first errors, without the values, which are foreign input."""
    shown = error.errors(include_url=False, include_context=False, include_input=False)[:_FAULTS_SHOWN]
    return "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in shown)


def existing_ban(message: str) -> Ban:
    """Reads the existing row from EMQX's `ALREADY_EXISTS` message.

    Raises:
        BrokerAnswerError: the message holds no row.
    """
    try:
        return BanRow.model_validate_json(message).ban()
    except ValidationError as e:
        raise BrokerAnswerError(f"the ban exists already, but EMQX did not say which: {validation_errors(e)}") from e


def rule_body(rule: AccessRule) -> dict[str, object]:
    """A rule as EMQX takes it, without defaults, so that every version accepts it."""
    body: dict[str, object] = {"topic": rule.topic, "permission": rule.permission, "action": rule.action}
    if rule.qos != _ALL_QOS:
        body["qos"] = list(rule.qos)
    if rule.retain != "all":
        body["retain"] = rule.retain == "true"
    if rule.limits:
        body.update(json.loads(rule.limits))
    return body


def rules_of(row: RulesRow) -> AccessRules:
    return tuple(rule.rule() for rule in row.rules)


def rule_text(rule: AccessRule) -> str:
    """A rule as operators see it: `allow publish cordon/v1/edge-1/up/#`."""
    text = f"{rule.permission} {rule.action} {rule.topic}"
    if rule.qos != _ALL_QOS:
        text += f" qos {','.join(str(level) for level in rule.qos)}"
    if rule.retain != "all":
        text += f" retain {rule.retain}"
    return clean_text(f"{text} {rule.limits}".rstrip(), _RULE_TEXT)


def until_text(until: float | None) -> str:
    """The end of a ban as EMQX takes it: whole seconds, rounded up."""
    if until is None:
        return FOREVER
    return datetime.fromtimestamp(ceil(until), UTC).isoformat().replace("+00:00", "Z")


def _seconds(value: datetime | int) -> float:
    if isinstance(value, int):
        return float(value)
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
