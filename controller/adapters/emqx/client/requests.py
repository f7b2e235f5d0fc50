"""Every request that Cordon makes to EMQX's API, grouped by resource: what is sent, and how the answer is read.

Pure. Names become pieces of a path only through `paths.py` and `delete_retained`.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.hocon import HoconError, read_hocon
from controller.adapters.emqx.client.http import ApiRequest, ApiResponse, HttpMethod
from controller.adapters.emqx.client.models import ListingPage, parse
from controller.adapters.emqx.client.paths import quoted, segment, subject_segment, user_segment
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.domain.containment.plan import Subject, SubjectKind
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerNotFoundError, BrokerRefusedError

PAGE_ROWS: Final = 1000
RULES_AT_ONCE: Final = 100  # clients in one request: what EMQX was measured with
CLIENTS_AT_ONCE: Final = 100  # ids in one request: its line stays below 8 KiB
SUBSCRIPTIONS_AT_ONCE: Final = 500  # topics in one request
RULES: Final = f"/authorization/sources/{models.DATABASE}/rules"
CLIENT_RULES: Final = f"{RULES}/clients"
SOURCES: Final = "/authorization/sources"
BANS: Final = "/banned"
RETAINED: Final = "/mqtt/retainer"
_OWNERS: Final = {SubjectKind.CLIENT: "clients", SubjectKind.USER: "users"}  # of rules, in paths

T = TypeVar("T")
_NO_FILTERS: Final[Mapping[str, str]] = {}
_Answer = ApiResponse | BrokerError


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Divides the items of a request that takes at most `size` of them."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _rows(model: type[T]) -> Callable[[_Answer], T]:
    def read(answer: _Answer) -> T:
        assert isinstance(answer, ApiResponse)
        return parse(model, answer)

    return read


def read_value(
    path: str, what: str, model: type[T], query: dict[str, Any] | None = None, *, asks_others: bool = False
) -> ApiRequest[T]:
    return ApiRequest("GET", path, what, _rows(model), query, asks_others=asks_others)


def _find(path: str, what: str, model: type[T], *, asks_others: bool = False) -> ApiRequest[T | None]:
    """Reads one row, `None` if there is none."""

    def read(answer: _Answer) -> T | None:
        return parse(model, answer) if isinstance(answer, ApiResponse) else None

    return ApiRequest("GET", path, what, read, answers=(BrokerNotFoundError,), asks_others=asks_others)


def list_rows(
    path: str,
    what: str,
    model: type[T],
    page: int,
    limit: int,
    *,
    filters: Mapping[str, str] = _NO_FILTERS,
    asks_others: bool = False,
) -> ApiRequest[ListingPage[T]]:
    """Lists a page of a table; `limit` is the most rows of a page, `page` counts from 1."""
    rows: type[ListingPage[T]] = ListingPage[model]  # type: ignore[valid-type]  # chosen at run time
    query = {"page": page, "limit": limit, **filters}
    return read_value(path, what, rows, query, asks_others=asks_others)


def _change(
    method: HttpMethod, path: str, what: str, body: object = None, *, repeat: bool = True, asks_others: bool = False
) -> ApiRequest[None]:
    return ApiRequest(method, path, what, lambda _answer: None, body=body, repeat=repeat, asks_others=asks_others)


def _change_if_there(
    method: HttpMethod, path: str, what: str, body: object = None, *, asks_others: bool = False
) -> ApiRequest[bool]:
    """The value says whether the row was there."""
    return ApiRequest(
        method,
        path,
        what,
        lambda answer: isinstance(answer, ApiResponse),
        body=body,
        answers=(BrokerNotFoundError,),
        asks_others=asks_others,
    )


def json_request(
    method: HttpMethod, path: str, what: str, *, body: object = None, repeat: bool = True, bearer: str = ""
) -> ApiRequest[Any]:
    """Any request, for parts of the API that only one module needs; the value is the answer's JSON."""
    return ApiRequest(method, path, what, _json, body=body, repeat=repeat, bearer=bearer)


def _json(answer: _Answer) -> Any:
    assert isinstance(answer, ApiResponse)
    return answer.data


def read_section(name: str) -> ApiRequest[dict[str, Any]]:
    """A section of the configuration that EMQX gives as text only, such as `node`; empty where there is none."""
    return ApiRequest("GET", "/configs", f"read section {name}", _section(name), query={"key": name}, is_text=True)


def _section(name: str) -> Callable[[_Answer], dict[str, Any]]:
    def read(answer: _Answer) -> dict[str, Any]:
        assert isinstance(answer, ApiResponse)
        try:
            section = read_hocon(str(answer.data)).get(name, {})
        except HoconError as e:
            raise BrokerAnswerError(f"section {name}: {e}") from e
        if not isinstance(section, dict):
            raise BrokerAnswerError(f"section {name}: not an object")
        return section

    return read


# Sessions


def read_client(client_id: str) -> ApiRequest[models.ClientRow | None]:
    return _find(f"/clients/{segment(client_id)}", "read client", models.ClientRow, asks_others=True)


def read_clients(client_ids: Sequence[str]) -> ApiRequest[ListingPage[models.ClientRow]]:
    """Reads the sessions of several clients; ids without a session are left out of the answer."""
    for client_id in client_ids:
        segment(client_id)
    query = {"limit": len(client_ids), "clientid": tuple(client_ids)}
    return read_value("/clients", "read clients", ListingPage[models.ClientRow], query, asks_others=True)


def list_sessions(
    username: str, page: int = 1, limit: int = PAGE_ROWS, *, node: str = ""
) -> ApiRequest[ListingPage[models.ClientRow]]:
    """Lists the sessions of a user on all nodes, or on one; an EMQX that does not know the filter lists all clients."""
    user_segment(username)
    filters = {"username": username, **({"node": node} if node else {})}
    what = "list sessions of the user"
    return list_rows("/clients", what, models.ClientRow, page, limit, filters=filters, asks_others=True)


def read_subscriptions(client_id: str) -> ApiRequest[tuple[models.SubscriptionRow, ...] | None]:
    path = f"/clients/{segment(client_id)}/subscriptions"
    return _find(path, "read subscriptions", tuple[models.SubscriptionRow, ...], asks_others=True)


def unsubscribe(client_id: str, topics: Sequence[str]) -> ApiRequest[bool]:
    """Ends subscriptions of the session, with or without a connection; at most `SUBSCRIPTIONS_AT_ONCE`."""
    path = f"/clients/{segment(client_id)}/unsubscribe/bulk"
    return _change_if_there("POST", path, "cut subscriptions", [{"topic": topic} for topic in topics], asks_others=True)


def subscribe(client_id: str, subscriptions: Sequence[SavedSubscription]) -> ApiRequest[bool]:
    """Makes subscriptions for the session; EMQX does not check them against the rules."""
    body = [{"topic": row.topic, "qos": row.qos, "nl": row.nl, "rap": row.rap, "rh": row.rh} for row in subscriptions]
    path = f"/clients/{segment(client_id)}/subscribe/bulk"
    return _change_if_there("POST", path, "give subscriptions back", body, asks_others=True)


def kick(client_id: str) -> ApiRequest[bool]:
    """Disconnects the client and destroys its session."""
    return _change_if_there("DELETE", f"/clients/{segment(client_id)}", "kick", asks_others=True)


def kick_many(client_ids: Sequence[str]) -> ApiRequest[None]:
    """Kicks several clients; EMQX does not tell which of them had a session."""
    return _change("POST", "/clients/kickout/bulk", "kick", list(client_ids), asks_others=True)


def read_cache(client_id: str) -> ApiRequest[tuple[models.CacheRow, ...] | None]:
    """Reads the access decisions in the cache of the client's connection."""
    path = f"/clients/{segment(client_id)}/authorization/cache"
    return _find(path, "read cache", tuple[models.CacheRow, ...], asks_others=True)


def clear_cache(client_id: str) -> ApiRequest[bool]:
    return _change_if_there(
        "DELETE", f"/clients/{segment(client_id)}/authorization/cache", "clear cache", asks_others=True
    )


def clear_all_caches() -> ApiRequest[None]:
    return _change("DELETE", "/authorization/cache", "clear all caches", asks_others=True)


# Bans


def list_bans(page: int = 1, limit: int = PAGE_ROWS) -> ApiRequest[ListingPage[models.BanRow]]:
    return list_rows(BANS, "list bans", models.BanRow, page, limit)


def read_ban(subject: Subject, page: int = 1, limit: int = PAGE_ROWS) -> ApiRequest[ListingPage[models.BanRow]]:
    """Reads the row of exactly this subject; EMQX before 5.8.1 knows no filter and lists all bans."""
    subject_segment(subject)
    return list_rows(BANS, "read ban", models.BanRow, page, limit, filters={subject.kind.value: subject.name})


def add_ban(subject: Subject, *, by: str, reason: str, until: float | None) -> ApiRequest[tuple[Ban, bool]]:
    """Bans the subject; the value is the row that exists now, and whether this request made it.

    EMQX disconnects a client that is banned by its client id, but not the clients of a banned user. It leaves an
    existing row as it is: there is no update.
    """
    subject_segment(subject)
    body = {
        "as": subject.kind.value, "who": subject.name, "by": by, "reason": reason, "until": models.until_text(until),
    }  # fmt: skip
    return ApiRequest("POST", BANS, "ban", _made_ban, body=body, answers=(EmqxConflictError,))


def _made_ban(answer: _Answer) -> tuple[Ban, bool]:
    if isinstance(answer, EmqxConflictError):
        return models.existing_ban(answer.message), False
    assert isinstance(answer, ApiResponse)
    return parse(models.BanRow, answer).ban(), True


def lift_ban(subject: Subject) -> ApiRequest[bool]:
    """Removes the subject's row, also a foreign one."""
    return _change_if_there("DELETE", f"{BANS}/{subject.kind.value}/{subject_segment(subject)}", "lift ban")


# Access rules


def list_client_rules(page: int = 1, limit: int = PAGE_ROWS) -> ApiRequest[ListingPage[models.ClientRulesRow]]:
    return list_rows(CLIENT_RULES, "list rules", models.ClientRulesRow, page, limit)


def list_user_rules(page: int = 1, limit: int = PAGE_ROWS) -> ApiRequest[ListingPage[models.RulesRow]]:
    return list_rows(f"{RULES}/users", "list rules", models.RulesRow, page, limit)


def read_rules(subject: Subject) -> ApiRequest[AccessRules | None]:
    """Reads the subject's own rules; `None` if there is no row, which is not the same as an empty row."""
    model = models.ClientRulesRow if subject.kind is SubjectKind.CLIENT else models.UserRulesRow

    def read(answer: _Answer) -> AccessRules | None:
        return models.rules_of(parse(model, answer)) if isinstance(answer, ApiResponse) else None

    return ApiRequest("GET", _rules_path(subject), "read rules", read, answers=(BrokerNotFoundError,))


def write_rules(subject: Subject, rules: AccessRules) -> ApiRequest[None]:
    """Replaces the subject's own rules."""
    return _change("PUT", _rules_path(subject), "write rules", _rules_row(subject, rules))


def add_rules(rows: Sequence[tuple[Subject, AccessRules]]) -> ApiRequest[None]:
    """Gives clients without a row their rules; EMQX writes none (`EmqxConflictError`) if one of them has a row."""
    body = [_rules_row(subject, rules) for subject, rules in rows]
    return _change("POST", CLIENT_RULES, "write rules in bulk", body)


def delete_rules(subject: Subject) -> ApiRequest[bool]:
    """Removes the subject's own rules."""
    return _change_if_there("DELETE", _rules_path(subject), "delete rules")


def read_all_rules() -> ApiRequest[models.RulesRow | None]:
    """Reads the rules for all clients."""
    return _find(f"{RULES}/all", "read rules for all", models.RulesRow)


def write_all_rules(rules: AccessRules) -> ApiRequest[None]:
    """Replaces the rules for all clients."""
    body = {"rules": [models.rule_body(rule) for rule in rules]}
    return _change("POST", f"{RULES}/all", "write rules for all", body)


def delete_all_rules() -> ApiRequest[bool]:
    """Removes the rules for all clients."""
    return _change_if_there("DELETE", f"{RULES}/all", "delete rules for all")


def _rules_path(subject: Subject) -> str:
    return f"{RULES}/{_OWNERS[subject.kind]}/{subject_segment(subject)}"


def _rules_row(subject: Subject, rules: AccessRules) -> dict[str, object]:
    subject_segment(subject)
    return {subject.kind.value: subject.name, "rules": [models.rule_body(rule) for rule in rules]}


# Settings and nodes


def read_sources() -> ApiRequest[tuple[models.SourceRow, ...]]:
    """Reads the authorization sources in the order in which EMQX consults them."""

    def read(answer: _Answer) -> tuple[models.SourceRow, ...]:
        return _rows(models.SourcesRow)(answer).sources

    return ApiRequest("GET", SOURCES, "read sources", read)


def create_database() -> ApiRequest[None]:
    """Adds the built-in database as the first source."""
    return _change("POST", SOURCES, "add source", {"type": models.DATABASE, "enable": True}, repeat=False)


def write_source(source: models.SourceRow) -> ApiRequest[None]:
    return _change("PUT", f"{SOURCES}/{quoted(source.type)}", "write source", source.model_dump(mode="json"))


def move_source(kind: str, position: str) -> ApiRequest[None]:
    """Moves a source in the order of consultation: `front`, `rear`, `before:x`, `after:x`."""
    return _change("POST", f"{SOURCES}/{quoted(kind)}/move", "move source", {"position": position})


def delete_source(kind: str) -> ApiRequest[bool]:
    """Removes a source; the built-in database loses all its rules."""
    return _change_if_there("DELETE", f"{SOURCES}/{quoted(kind)}", "delete source")


def read_authenticators() -> ApiRequest[tuple[models.AuthenticatorRow, ...]]:
    """Reads the authentication chain; EMQX admits all clients if it is empty."""
    return read_value("/authentication", "read authentication", tuple[models.AuthenticatorRow, ...])


def read_user(authenticator_id: str, user_id: str) -> ApiRequest[models.UserRow | None]:
    """Reads a user of a built-in authentication database."""
    path = f"/authentication/{quoted(authenticator_id)}/users/{quoted(user_id)}"
    return _find(path, "read user", models.UserRow)


def read_listeners() -> ApiRequest[tuple[models.ListenerRow, ...]]:
    """Reads every listener, without its TLS settings."""
    return read_value("/listeners", "read listeners", tuple[models.ListenerRow, ...], asks_others=True)


def read_listener(listener_id: str) -> ApiRequest[models.ListenerRow | None]:
    """Reads one listener with its TLS settings."""
    return _find(f"/listeners/{quoted(listener_id)}", "read listener", models.ListenerRow, asks_others=True)


def read_zone() -> ApiRequest[models.ZoneRow]:
    """Reads the global zone."""
    return read_value("/configs/global_zone", "read zone", models.ZoneRow)


def read_node(name: str) -> ApiRequest[models.NodeRow]:
    """Reads one member of the cluster, from that node."""
    return read_value(f"/nodes/{quoted(name)}", "read node", models.NodeRow, asks_others=True)


def read_cluster() -> ApiRequest[models.ClusterRow]:
    """Reads the name of the answering node, and of all nodes that run as far as it knows."""
    return read_value("/cluster", "read cluster", models.ClusterRow)


# Messages


def list_retained(page: int = 1, limit: int = PAGE_ROWS) -> ApiRequest[ListingPage[models.RetainedRow]]:
    """Lists retained messages without their payloads; `BrokerNotFoundError` where EMQX has no such listing."""
    return list_rows(f"{RETAINED}/messages", "list retained messages", models.RetainedRow, page, limit)


def delete_retained(topic: str) -> ApiRequest[bool]:
    """Deletes the retained message of exactly this topic.

    Raises:
        BrokerRefusedError: a wildcard: it would delete other messages too.
    """
    if not topic or "#" in topic or "+" in topic or topic in {".", ".."}:
        raise BrokerRefusedError("not the topic of one message")
    return _change_if_there("DELETE", f"{RETAINED}/message/{quoted(topic)}", "delete retained message")


def publish(topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> ApiRequest[bool]:
    """Publishes past every access rule; the value says whether there was a subscriber. Never repeated."""
    encoded = base64.b64encode(payload).decode()
    body = {"topic": topic, "payload": encoded, "payload_encoding": "base64", "qos": qos, "retain": retain}
    return ApiRequest("POST", "/publish", "publish", _had_subscriber, body=body, repeat=False)


def _had_subscriber(answer: _Answer) -> bool:
    return isinstance(answer, ApiResponse) and answer.status == 200
