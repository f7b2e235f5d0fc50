"""`/clients`, `/clients_v2`, `/subscriptions`: who is connected, and forcing them apart."""

import base64
from typing import Any

from controller.standin.api.check import (
    Field,
    bad_request,
    body_object,
    body_objects,
    number,
    page_of,
    text,
)
from controller.standin.api.rows import client_row, subscription_row
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, as_json, empty
from controller.standin.client import Client
from controller.standin.limits import MAX_PAGE_ROWS
from controller.standin.session import SubscriptionOptions
from controller.standin.topics import ParsedFilter, matches, parse_filter

_TOPIC = {"topic": Field(text, required=True)}
_SUBSCRIPTION = {
    **_TOPIC,
    "qos": Field(number(0, 2), default=0),
    "nl": Field(number(0, 1), default=0),
    "rap": Field(number(0, 1), default=0),
    "rh": Field(number(0, 2), default=0),
}


def _client(context: RequestContext, request: Request) -> Client:
    client = context.registry.state.clients.get(request.bindings["clientid"])
    if client is None:
        raise ApiError(404, "CLIENTID_NOT_FOUND", "Client ID not found")
    return client


def _node_filter(context: RequestContext, request: Request) -> str | None:
    node = request.first("node")
    if node is not None:
        known = context.registry.state.nodes.get(node)
        if known is None:
            reason = f'bad rpc call <<"{node}">>, Reason <<"invalid node">>'
            raise ApiError(500, "NODE_DOWN", reason)
        if not known.running:
            raise ApiError(500, "NODE_DOWN", f"bad rpc call '{node}', Reason nodedown")
    return node


def _matching(context: RequestContext, request: Request) -> tuple[list[Client], bool]:
    """The clients a query asks for and whether it searched parts of text."""
    node = _node_filter(context, request)
    ids, users = request.every("clientid", "clientid[]"), request.every("username", "username[]")
    like_id, like_user = request.first("like_clientid"), request.first("like_username")
    state, address = request.first("conn_state"), request.first("ip_address")
    version, clean = request.first("proto_ver"), request.first("clean_start")
    clients = context.registry.state.clients
    # a few ids are looked up instead of searched
    candidates = [clients[i] for i in dict.fromkeys(ids) if i in clients] if ids else list(clients.values())
    found = [
        c
        for c in candidates
        if (node is None or c.endpoint.node == node)
        and (not users or c.identity.username in users)
        and (like_id is None or like_id in c.clientid)
        and (like_user is None or like_user in (c.identity.username or ""))
        and (state is None or (state == "connected") == (c.link is not None))
        and (address is None or c.endpoint.peerhost == address)
        and (version is None or str(c.proto_ver) == version)
        and (clean is None or (clean == "true") == c.clean_start)
    ]
    return found, like_id is not None or like_user is not None


def _fields(request: Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = request.first("fields")
    if wanted in (None, "all"):
        return rows
    names = [name for name in str(wanted).split(",") if name]
    return [{name: row[name] for name in names if name in row} for row in rows]


def listing(context: RequestContext, request: Request) -> Response:
    """One page of clients."""
    page = page_of(request)
    found, fuzzy = _matching(context, request)
    rows = _fields(request, [client_row(c) for c in page.cut(found)])
    return as_json(200, {"data": rows, "meta": page.meta(len(found), counted=not fuzzy)})


def cursor_listing(context: RequestContext, request: Request) -> Response:
    """One page of clients from a cursor on; no cursor in the answer means that it was the last."""
    limit = page_of(request).limit
    start = _read_cursor(request.first("cursor"))
    found, _ = _matching(context, request)
    part = found[start : start + limit]
    meta: dict[str, object] = {"count": len(part)}
    if len(part) == limit:
        meta["cursor"] = base64.urlsafe_b64encode(f"v1:{start + limit}".encode()).decode()
    return as_json(200, {"data": _fields(request, [client_row(c) for c in part]), "meta": meta})


def _read_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        version, _, position = base64.urlsafe_b64decode(cursor).decode().partition(":")
    except ValueError as error:
        raise bad_request("bad cursor") from error
    if version != "v1" or not position.isdecimal():
        raise bad_request("bad cursor")
    return int(position)


def show(context: RequestContext, request: Request) -> Response:
    """One client."""
    return as_json(200, _fields(request, [client_row(_client(context, request))])[0])


def kick(context: RequestContext, request: Request) -> Response:
    """End a client and its session, connected or not."""
    context.registry.kick(_client(context, request).clientid)
    return empty()


def kick_many(context: RequestContext, request: Request) -> Response:
    """End several; those that do not exist are passed over."""
    ids = request.json()
    if not isinstance(ids, list) or len(ids) > MAX_PAGE_ROWS or not all(isinstance(i, str) for i in ids):
        raise bad_request("the body must be a list of client ids")
    for clientid in ids:
        context.registry.kick(clientid)
    return empty()


def subscriptions(context: RequestContext, request: Request) -> Response:
    """What a client is subscribed to."""
    client = _client(context, request)
    rows = [subscription_row(client, p, o) for p, o in client.session.subscriptions.items()]
    return as_json(200, sorted(rows, key=lambda row: str(row["topic"])))


def all_subscriptions(context: RequestContext, request: Request) -> Response:
    """One page of all subscriptions."""
    page = page_of(request)
    node = _node_filter(context, request)
    clientid, topic, qos = request.first("clientid"), request.first("topic"), request.first("qos")
    covering, group = request.first("match_topic"), request.first("share_group")
    rows = [
        subscription_row(client, parsed, options)
        for client in context.registry.state.clients.values()
        for parsed, options in client.session.subscriptions.items()
        if (node is None or client.endpoint.node == node)
        and (clientid is None or client.clientid == clientid)
        and (qos is None or str(options.qos) == qos)
        and (group is None or parsed.group == group)
        and (topic is None or parsed == parse_filter(topic))
        and (covering is None or matches(parsed.filter, covering))
    ]
    meta = page.meta(len(rows), counted=covering is None)
    return as_json(200, {"data": page.cut(rows), "meta": meta})


def _force_subscribe(context: RequestContext, client: Client, given: dict[str, Any]) -> dict[str, Any]:
    parsed = _parsed(given["topic"])
    options = SubscriptionOptions(given["qos"], bool(given["nl"]), bool(given["rap"]), given["rh"])
    for delivery in context.registry.router.subscribe(client, parsed, options):
        client.deliver(delivery)
    return subscription_row(client, parsed, options)


def _parsed(topic: str) -> ParsedFilter:
    parsed = parse_filter(topic)
    if parsed is None:
        raise bad_request(f"bad topic filter: {topic}")
    return parsed


def subscribe(context: RequestContext, request: Request) -> Response:
    """Subscribe a client without asking it or the rules."""
    client = _client(context, request)
    return as_json(200, _force_subscribe(context, client, body_object(request, _SUBSCRIPTION)))


def subscribe_many(context: RequestContext, request: Request) -> Response:
    """Subscribe a client to several filters."""
    client = _client(context, request)
    given = body_objects(request, _SUBSCRIPTION, MAX_PAGE_ROWS)
    return as_json(200, [_force_subscribe(context, client, item) for item in given])


def _force_unsubscribe(context: RequestContext, client: Client, topics: list[str]) -> None:
    for topic in topics:
        parsed = parse_filter(topic)
        if parsed is not None:
            context.registry.router.unsubscribe(client, parsed)


def unsubscribe(context: RequestContext, request: Request) -> Response:
    """Take a subscription away; one that does not exist is passed over."""
    given = body_object(request, _TOPIC)
    client = _client(context, request)
    _force_unsubscribe(context, client, [given["topic"]])
    return empty()


def unsubscribe_many(context: RequestContext, request: Request) -> Response:
    """Take several subscriptions away, also from a session that is away."""
    given = body_objects(request, _TOPIC, MAX_PAGE_ROWS)
    client = _client(context, request)
    _force_unsubscribe(context, client, [item["topic"] for item in given])
    return empty()


def cache(context: RequestContext, request: Request) -> Response:
    """The access decisions remembered for a client, newest first."""
    client = _client(context, request)
    rows = []
    for action, topic, entry in client.cache.rows(context.registry.state.now()):
        access: dict[str, object] = {"action_type": action.type.value, "qos": action.qos}
        if action.retain is not None:
            access["retain"] = action.retain
        rows.append(
            {
                "access": access,
                "result": entry.verdict.value,
                "topic": topic,
                "updated_time": int(entry.at * 1000),
            }
        )
    return as_json(200, rows)


def clear_cache(context: RequestContext, request: Request) -> Response:
    """Forget them, so that new rules bite at once."""
    _client(context, request).cache.clear()
    return empty()


ROUTES = (
    Route("/api/v5/clients", {"GET": listing}),
    Route("/api/v5/clients_v2", {"GET": cursor_listing}),
    Route("/api/v5/clients/kickout/bulk", {"POST": kick_many}),
    Route("/api/v5/clients/:clientid", {"GET": show, "DELETE": kick}),
    Route("/api/v5/clients/:clientid/authorization/cache", {"GET": cache, "DELETE": clear_cache}),
    Route("/api/v5/clients/:clientid/subscriptions", {"GET": subscriptions}),
    Route("/api/v5/clients/:clientid/subscribe", {"POST": subscribe}),
    Route("/api/v5/clients/:clientid/subscribe/bulk", {"POST": subscribe_many}),
    Route("/api/v5/clients/:clientid/unsubscribe", {"POST": unsubscribe}),
    Route("/api/v5/clients/:clientid/unsubscribe/bulk", {"POST": unsubscribe_many}),
    Route("/api/v5/subscriptions", {"GET": all_subscriptions}),
)
