"""The requests of containment as data, one function each: what is sent and what an operator is shown are made here.

Pure. `subject` is a client id or a user name; who may be acted on is checked where it becomes a piece of a path.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import quote

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.http import Call
from controller.ports.broker import KeptSubscription, Rules
from controller.ports.errors import BrokerRefusedError
from schemas.base import DEVICE_ID_PATTERN

Holder = Literal["clients", "users"]
BanKind = Literal["clientid", "username"]
MAX_USER_NAME: Final = 256  # characters
RULES: Final = f"/authorization/sources/{models.DATABASE}/rules"
RULES_AT_ONCE: Final = 100  # clients in one request: what EMQX was measured with
CLIENTS_AT_ONCE: Final = 100  # ids in one request: its line stays below 8 KiB
RETAINED: Final = "/mqtt/retainer"
_CLIENT_ID: Final = re.compile(DEVICE_ID_PATTERN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMES: Final[dict[Holder, str]] = {"clients": "clientid", "users": "username"}


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


def _piece(holder: Holder, subject: str) -> str:
    return segment(subject) if holder == "clients" else user_segment(subject)


def read_client(client_id: str) -> Call:
    """The client's session."""
    return Call("GET", f"/clients/{segment(client_id)}", "read client")


def read_clients(client_ids: Sequence[str]) -> Call:
    """The sessions of several clients; ids that have none are left out of the answer."""
    for client_id in client_ids:
        segment(client_id)
    return Call("GET", "/clients", "read clients", query={"limit": len(client_ids), "clientid": tuple(client_ids)})


def read_subscriptions(client_id: str) -> Call:
    """What its session holds."""
    return Call("GET", f"/clients/{segment(client_id)}/subscriptions", "read subscriptions")


def unsubscribe(client_id: str, topics: Sequence[str]) -> Call:
    """End these subscriptions."""
    body = [{"topic": topic} for topic in topics]
    return Call("POST", f"/clients/{segment(client_id)}/unsubscribe/bulk", "cut subscriptions", body=body)


def subscribe(client_id: str, kept: Sequence[KeptSubscription]) -> Call:
    """Give these subscriptions back, past the rules."""
    body = [{"topic": one.topic, "qos": one.qos, "nl": one.nl, "rap": one.rap, "rh": one.rh} for one in kept]
    return Call("POST", f"/clients/{segment(client_id)}/subscribe/bulk", "give subscriptions back", body=body)


def kick(client_id: str) -> Call:
    """Disconnect it and destroy its session."""
    return Call("DELETE", f"/clients/{segment(client_id)}", "kick")


def kick_many(client_ids: Sequence[str]) -> Call:
    """The same for many; ids that are not there are passed over."""
    return Call("POST", "/clients/kickout/bulk", "kick", body=list(client_ids))


def read_cache(client_id: str) -> Call:
    """The access decisions that its connection remembers."""
    return Call("GET", f"/clients/{segment(client_id)}/authorization/cache", "read cache")


def clear_cache(client_id: str) -> Call:
    """Make its connection forget them."""
    return Call("DELETE", f"/clients/{segment(client_id)}/authorization/cache", "clear cache")


def read_ban(kind: BanKind, subject: str, page: int = 1, limit: int = 1000) -> Call:
    """The row of exactly this subject; EMQX before 5.8.1 knows no filter and lists everything."""
    _piece("clients" if kind == "clientid" else "users", subject)
    return Call("GET", "/banned", "read ban", query={"page": page, "limit": limit, kind: subject})


def add_ban(kind: BanKind, subject: str, *, by: str, reason: str, until: float | None) -> Call:
    """Ban it; by client id EMQX cuts the connection itself, by user name it does not."""
    _piece("clients" if kind == "clientid" else "users", subject)
    body = {"as": kind, "who": subject, "by": by, "reason": reason, "until": models.until_text(until)}
    return Call("POST", "/banned", "ban", body=body)


def lift_ban(kind: BanKind, subject: str) -> Call:
    """Remove its row, whoever made it."""
    piece = _piece("clients" if kind == "clientid" else "users", subject)
    return Call("DELETE", f"/banned/{kind}/{piece}", "lift ban")


def read_rules(holder: Holder, subject: str) -> Call:
    """Its own rules."""
    return Call("GET", f"{RULES}/{holder}/{_piece(holder, subject)}", "read rules")


def write_rules(holder: Holder, subject: str, rules: Rules) -> Call:
    """Make these its own rules, whatever it had."""
    return Call(
        "PUT", f"{RULES}/{holder}/{_piece(holder, subject)}", "write rules", body=_rules_row(holder, subject, rules)
    )


def add_rules(wanted: Sequence[tuple[str, Rules]]) -> Call:
    """Give several clients that have none their rules; refused as a whole where one of them has some."""
    body = [_rules_row("clients", client_id, rules) for client_id, rules in wanted]
    return Call("POST", f"{RULES}/clients", "write rules in bulk", body=body)


def delete_rules(holder: Holder, subject: str) -> Call:
    """Leave it no rules of its own."""
    return Call("DELETE", f"{RULES}/{holder}/{_piece(holder, subject)}", "delete rules")


def read_sources() -> Call:
    """Whom EMQX asks for access, in order."""
    return Call("GET", "/authorization/sources", "read sources")


def read_authenticators() -> Call:
    """The authentication chain."""
    return Call("GET", "/authentication", "read authentication")


def list_sessions(username: str, page: int = 1, limit: int = 1000) -> Call:
    """Every session of a user, on all nodes."""
    query: dict[str, str | int] = {"page": page, "limit": limit, "username": username}
    return Call("GET", "/clients", "list sessions of the user", query=query)


def list_retained(page: int = 1, limit: int = 1000) -> Call:
    """Retained messages without their payloads, each with who published it."""
    return Call("GET", f"{RETAINED}/messages", "list retained messages", query={"page": page, "limit": limit})


def delete_retained(topic: str) -> Call:
    """Delete the retained message of exactly this topic.

    Raises:
        BrokerRefusedError: a wildcard: it would delete others' too.
    """
    if not topic or "#" in topic or "+" in topic or topic in {".", ".."}:
        raise BrokerRefusedError("not the topic of one message")
    return Call("DELETE", f"{RETAINED}/message/{quote(topic, safe='')}", "delete retained message")


def _rules_row(holder: Holder, subject: str, rules: Rules) -> dict[str, object]:
    _piece(holder, subject)
    return {_NAMES[holder]: subject, "rules": [models.rule_body(rule) for rule in rules]}
