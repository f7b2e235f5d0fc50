"""The requests of containment as data, one function each: what is sent and what an operator is shown are made here.

Pure. `subject` is a client id or a user name; who may be acted on is checked where it becomes a piece of a path.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import quote

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.http import ApiRequest
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerRefusedError
from schemas.base import DEVICE_ID_PATTERN

SubjectPath = Literal["clients", "users"]
BanKind = Literal["clientid", "username"]
MAX_USER_NAME: Final = 256  # characters
RULES: Final = f"/authorization/sources/{models.DATABASE}/rules"
RULES_AT_ONCE: Final = 100  # clients in one request: what EMQX was measured with
CLIENTS_AT_ONCE: Final = 100  # ids in one request: its line stays below 8 KiB
RETAINED: Final = "/mqtt/retainer"
_CLIENT_ID: Final = re.compile(DEVICE_ID_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMES: Final[dict[SubjectPath, str]] = {"clients": "clientid", "users": "username"}


def segment(client_id: str) -> str:
    """A client id as a piece of a URL's path.

    Raises:
        BrokerRefusedError: not an id that Cordon acts on. `.` and `..` would climb up the path, and deleting the ban
            of `..` would delete every ban there is; wildcards would make rules for others.
    """
    if _CLIENT_ID.fullmatch(client_id) is None or client_id in {".", ".."}:
        raise BrokerRefusedError("not a client id that Cordon acts on")
    return quote(client_id, safe="")


def user_segment(name: str) -> str:
    """A user name as a piece of a URL's path.

    Raises:
        BrokerRefusedError: empty, too long, with control characters, or a step up the path.
    """
    if not 0 < len(name) <= MAX_USER_NAME or _CONTROL.search(name) or name in {".", ".."}:
        raise BrokerRefusedError(f"not a user name that Cordon acts on: 1 to {MAX_USER_NAME} visible characters")
    return quote(name, safe="")


def _piece(holder: SubjectPath, subject: str) -> str:
    return segment(subject) if holder == "clients" else user_segment(subject)


def read_client(client_id: str) -> ApiRequest:
    """The client's session."""
    return ApiRequest("GET", f"/clients/{segment(client_id)}", "read client")


def read_clients(client_ids: Sequence[str]) -> ApiRequest:
    """The sessions of several clients; ids that have none are left out of the answer."""
    for client_id in client_ids:
        segment(client_id)
    return ApiRequest(
        "GET", "/clients", "read clients", query={"limit": len(client_ids), "clientid": tuple(client_ids)}
    )


def read_subscriptions(client_id: str) -> ApiRequest:
    """What its session holds."""
    return ApiRequest("GET", f"/clients/{segment(client_id)}/subscriptions", "read subscriptions")


def unsubscribe(client_id: str, topics: Sequence[str]) -> ApiRequest:
    """End these subscriptions."""
    body = [{"topic": topic} for topic in topics]
    return ApiRequest("POST", f"/clients/{segment(client_id)}/unsubscribe/bulk", "cut subscriptions", body=body)


def subscribe(client_id: str, kept: Sequence[SavedSubscription]) -> ApiRequest:
    """Give these subscriptions back, past the rules."""
    body = [{"topic": one.topic, "qos": one.qos, "nl": one.nl, "rap": one.rap, "rh": one.rh} for one in kept]
    return ApiRequest("POST", f"/clients/{segment(client_id)}/subscribe/bulk", "give subscriptions back", body=body)


def kick(client_id: str) -> ApiRequest:
    """Disconnect it and destroy its session."""
    return ApiRequest("DELETE", f"/clients/{segment(client_id)}", "kick")


def kick_many(client_ids: Sequence[str]) -> ApiRequest:
    """The same for many; ids that are not there are passed over."""
    return ApiRequest("POST", "/clients/kickout/bulk", "kick", body=list(client_ids))


def read_cache(client_id: str) -> ApiRequest:
    """The access decisions that its connection remembers."""
    return ApiRequest("GET", f"/clients/{segment(client_id)}/authorization/cache", "read cache")


def clear_cache(client_id: str) -> ApiRequest:
    """Make its connection forget them."""
    return ApiRequest("DELETE", f"/clients/{segment(client_id)}/authorization/cache", "clear cache")


def read_ban(kind: BanKind, subject: str, page: int = 1, limit: int = 1000) -> ApiRequest:
    """The row of exactly this subject; EMQX before 5.8.1 knows no filter and lists everything."""
    _piece("clients" if kind == "clientid" else "users", subject)
    return ApiRequest("GET", "/banned", "read ban", query={"page": page, "limit": limit, kind: subject})


def add_ban(kind: BanKind, subject: str, *, by: str, reason: str, until: float | None) -> ApiRequest:
    """Ban it; by client id EMQX cuts the connection itself, by user name it does not."""
    _piece("clients" if kind == "clientid" else "users", subject)
    body = {"as": kind, "who": subject, "by": by, "reason": reason, "until": models.until_text(until)}
    return ApiRequest("POST", "/banned", "ban", body=body)


def lift_ban(kind: BanKind, subject: str) -> ApiRequest:
    """Remove its row, whoever made it."""
    piece = _piece("clients" if kind == "clientid" else "users", subject)
    return ApiRequest("DELETE", f"/banned/{kind}/{piece}", "lift ban")


def read_rules(holder: SubjectPath, subject: str) -> ApiRequest:
    """Its own rules."""
    return ApiRequest("GET", f"{RULES}/{holder}/{_piece(holder, subject)}", "read rules")


def write_rules(holder: SubjectPath, subject: str, rules: AccessRules) -> ApiRequest:
    """Make these its own rules, whatever it had."""
    return ApiRequest(
        "PUT", f"{RULES}/{holder}/{_piece(holder, subject)}", "write rules", body=_rules_row(holder, subject, rules)
    )


def add_rules(wanted: Sequence[tuple[str, AccessRules]]) -> ApiRequest:
    """Give several clients that have none their rules; refused as a whole where one of them has some."""
    body = [_rules_row("clients", client_id, rules) for client_id, rules in wanted]
    return ApiRequest("POST", f"{RULES}/clients", "write rules in bulk", body=body)


def delete_rules(holder: SubjectPath, subject: str) -> ApiRequest:
    """Leave it no rules of its own."""
    return ApiRequest("DELETE", f"{RULES}/{holder}/{_piece(holder, subject)}", "delete rules")


def read_sources() -> ApiRequest:
    """Whom EMQX asks for access, in order."""
    return ApiRequest("GET", "/authorization/sources", "read sources")


def read_authenticators() -> ApiRequest:
    """The authentication chain."""
    return ApiRequest("GET", "/authentication", "read authentication")


def list_sessions(username: str, page: int = 1, limit: int = 1000) -> ApiRequest:
    """Every session of a user, on all nodes."""
    query: dict[str, str | int] = {"page": page, "limit": limit, "username": username}
    return ApiRequest("GET", "/clients", "list sessions of the user", query=query)


def list_retained(page: int = 1, limit: int = 1000) -> ApiRequest:
    """Retained messages without their payloads, each with who published it."""
    return ApiRequest("GET", f"{RETAINED}/messages", "list retained messages", query={"page": page, "limit": limit})


def delete_retained(topic: str) -> ApiRequest:
    """Delete the retained message of exactly this topic.

    Raises:
        BrokerRefusedError: a wildcard: it would delete others' too.
    """
    if not topic or "#" in topic or "+" in topic or topic in {".", ".."}:
        raise BrokerRefusedError("not the topic of one message")
    return ApiRequest("DELETE", f"{RETAINED}/message/{quote(topic, safe='')}", "delete retained message")


def _rules_row(holder: SubjectPath, subject: str, rules: AccessRules) -> dict[str, object]:
    _piece(holder, subject)
    return {_NAMES[holder]: subject, "rules": [models.rule_body(rule) for rule in rules]}
