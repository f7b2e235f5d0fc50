"""`/clients`, `/clients_v2`, `/subscriptions`: lists clients and subscriptions, kicks and unsubscribes clients."""

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
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.client import Client
from controller.standin.options import MAX_PAGE_ROWS
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
    """Returns the clients that match a query, and whether it had substring filters."""
    node = _node_filter(context, request)
    ids, users = request.every("clientid", "clientid[]"), request.every("username", "username[]")
    like_id, like_user = request.first("like_clientid"), request.first("like_username")
    state, address = request.first("conn_state"), request.first("ip_address")
    version, clean = request.first("proto_ver"), request.first("clean_start")
    clients = context.registry.state.clients
    # With ids given, other clients need not be searched.
    candidates = [clients[i] for i in dict.fromkeys(ids) if i in clients] if ids else list(clients.values())
    matching = [
        c
        for c in candidates
        if (node is None or c.endpoint.node == node)
        and (not users or c.identity.username in users)
        and (like_id is None or like_id in c.clientid)
        and (like_user is None or like_user in (c.identity.username or ""))
        and (state is None or (state == "connected") == (c.connection is not None))
        and (address is None or c.endpoint.peerhost == address)
        and (version is None or str(c.proto_ver) == version)
        and (clean is None or (clean == "true") == c.clean_start)
    ]
    return matching, like_id is not None or like_user is not None


def _fields(request: Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fields = request.first("fields")
    if fields in (None, "all"):
        return rows
    names = [name for name in str(fields).split(",") if name]
    return [{name: row[name] for name in names if name in row} for row in rows]


def listing(context: RequestContext, request: Request) -> Response:
    """Lists clients by page."""
    release = context.registry.state.release
    page = page_of(request)
    matching, fuzzy = _matching(context, request)
    rows = _fields(request, [client_row(c, release) for c in page.slice(matching)])
    return json_response(200, {"data": rows, "meta": page.meta(len(matching), counted=not fuzzy)})


def cursor_listing(context: RequestContext, request: Request) -> Response:
    """Lists clients from a cursor on; the last page has no cursor."""
    release = context.registry.state.release
    limit = page_of(request).limit
    start = _read_cursor(request.first("cursor"))
    matching, _ = _matching(context, request)
    part = matching[start : start + limit]
    meta: dict[str, object] = {"count": len(part)}
    if len(part) == limit:
        meta["cursor"] = base64.urlsafe_b64encode(f"v1:{start + limit}".encode()).decode()
    return json_response(200, {"data": _fields(request, [client_row(c, release) for c in part]), "meta": meta})


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
    """Returns a client."""
    release = context.registry.state.release
    return json_response(200, _fields(request, [client_row(_client(context, request), release)])[0])


def kick(context: RequestContext, request: Request) -> Response:
    """Ends a client's connection and session."""
    context.registry.kick(_client(context, request).clientid)
    return no_content()


def kick_many(context: RequestContext, request: Request) -> Response:
    """Kicks several clients; unknown ids are ignored."""
    ids = request.json()
    if not isinstance(ids, list) or len(ids) > MAX_PAGE_ROWS or not all(isinstance(i, str) for i in ids):
        raise bad_request("the body must be a list of client ids")
    for clientid in ids:
        context.registry.kick(clientid)
    return no_content()


def subscriptions(context: RequestContext, request: Request) -> Response:
    """Lists the subscriptions of a client."""
    client = _client(context, request)
    rows = [subscription_row(client, p, o) for p, o in client.session.subscriptions.items()]
    return json_response(200, sorted(rows, key=lambda row: str(row["topic"])))


def all_subscriptions(context: RequestContext, request: Request) -> Response:
    """Lists all subscriptions by page."""
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
    return json_response(200, {"data": page.slice(rows), "meta": meta})


def topics(context: RequestContext, request: Request) -> Response:
    """Lists the topic filters that have subscribers, by page; a share group's without its prefix."""
    page = page_of(request)
    clients = context.registry.state.clients.values()
    routes = sorted({(parsed.filter, c.endpoint.node) for c in clients for parsed in c.session.subscriptions})
    rows = [{"topic": topic, "node": node} for topic, node in page.slice(routes)]
    return json_response(200, {"data": rows, "meta": page.meta(len(routes))})


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
    """Subscribes a client; access rules do not apply."""
    client = _client(context, request)
    return json_response(200, _force_subscribe(context, client, body_object(request, _SUBSCRIPTION)))


def subscribe_many(context: RequestContext, request: Request) -> Response:
    """Subscribes a client to several filters."""
    client = _client(context, request)
    given = body_objects(request, _SUBSCRIPTION, MAX_PAGE_ROWS)
    return json_response(200, [_force_subscribe(context, client, item) for item in given])


def _force_unsubscribe(context: RequestContext, client: Client, topics: list[str]) -> None:
    for topic in topics:
        parsed = parse_filter(topic)
        if parsed is not None:
            context.registry.router.unsubscribe(client, parsed)


def unsubscribe(context: RequestContext, request: Request) -> Response:
    """Removes a subscription; an unknown one is ignored."""
    given = body_object(request, _TOPIC)
    client = _client(context, request)
    _force_unsubscribe(context, client, [given["topic"]])
    return no_content()


def unsubscribe_many(context: RequestContext, request: Request) -> Response:
    """Removes several subscriptions, also from a session without connection."""
    given = body_objects(request, _TOPIC, MAX_PAGE_ROWS)
    client = _client(context, request)
    _force_unsubscribe(context, client, [item["topic"] for item in given])
    return no_content()


def cache(context: RequestContext, request: Request) -> Response:
    """Lists the authorization cache of a client, newest first."""
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
    return json_response(200, rows)


def clear_cache(context: RequestContext, request: Request) -> Response:
    """Clears the authorization cache of a client, so that new rules apply immediately."""
    _client(context, request).cache.clear()
    return no_content()


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
    Route("/api/v5/topics", {"GET": topics}),
)
