"""`/mqtt/retainer`, `/mqtt/delayed`: lists retained and delayed messages, and deletes retained ones.

The formats are from EMQX's source (5.8, built-in backend). Deleting all messages at once is not implemented, because
no client of a stand-in should depend on it.
"""

from datetime import UTC, datetime

from controller.standin.api.check import page_of
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.messages import Message
from controller.standin.topics import matches


def _row(message: Message) -> dict[str, object]:
    published = datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds")
    return {
        "msgid": message.id,
        "topic": message.topic,
        "qos": message.qos,
        "publish_at": published,
        "from_clientid": message.sender,
        "from_username": message.username or "",
    }


def _unexpired(context: RequestContext) -> list[Message]:
    now = context.registry.state.now()
    return [message for message in context.registry.router.retained.values() if not message.expired(now)]


def listing(context: RequestContext, request: Request) -> Response:
    """Lists retained messages by page; only an unfiltered listing has a count."""
    page = page_of(request)
    pattern = request.first("topic")
    matching = [message for message in _unexpired(context) if pattern is None or matches(message.topic, pattern)]
    meta: dict[str, object] = {} if pattern is not None else {"count": len(matching)}
    meta |= {"page": page.page, "limit": page.limit, "hasnext": page.page * page.limit < len(matching)}
    return json_response(200, {"data": [_row(message) for message in page.slice(matching)], "meta": meta})


def delete(context: RequestContext, request: Request) -> Response:
    """Deletes the messages whose topic matches; 404 without any."""
    pattern = request.bindings["topic"]
    topics = [message.topic for message in _unexpired(context) if matches(message.topic, pattern)]
    if not topics:
        raise ApiError(404, "NOT_FOUND", "Viewed message doesn't exist")
    for topic in topics:
        context.registry.router.retained.pop(topic, None)
    return no_content()


def delayed(context: RequestContext, request: Request) -> Response:
    """Lists delayed messages by page; the format is from EMQX's documentation."""
    page = page_of(request)
    waiting = context.registry.router.delayed_messages
    rows = [
        {**_row(message), "node": context.node.name, "expected_at": datetime.fromtimestamp(due, UTC).isoformat()}
        for message, due in page.slice(waiting)
    ]
    return json_response(200, {"data": rows, "meta": page.meta(len(waiting))})


ROUTES = (
    Route("/api/v5/mqtt/delayed/messages", {"GET": delayed}),
    Route("/api/v5/mqtt/retainer/messages", {"GET": listing}),
    Route("/api/v5/mqtt/retainer/message/:topic", {"DELETE": delete}),
)
