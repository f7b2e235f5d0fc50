"""`/mqtt/retainer`: the retained messages, listed and deleted one by one.

From EMQX's source (5.8, built-in backend), not from the recording; deleting all of them at once is left out, because
nothing that runs against a stand-in should get used to it.
"""

from datetime import UTC, datetime

from controller.standin.api.check import page_of
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, as_json, empty
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


def _living(context: RequestContext) -> list[Message]:
    now = context.registry.state.now()
    return [message for message in context.registry.router.retained.values() if not message.expired(now)]


def listing(context: RequestContext, request: Request) -> Response:
    """One page; only an unfiltered one is counted."""
    page = page_of(request)
    wanted = request.first("topic")
    found = [one for one in _living(context) if wanted is None or matches(one.topic, wanted)]
    cut = page.cut(found)
    meta: dict[str, object] = {} if wanted is not None else {"count": len(found)}
    meta |= {"page": page.page, "limit": page.limit, "hasnext": page.page * page.limit < len(found)}
    return as_json(200, {"data": [_row(one) for one in cut], "meta": meta})


def delete(context: RequestContext, request: Request) -> Response:
    """Delete those that the topic, or filter, covers; 404 when there is none."""
    pattern = request.bindings["topic"]
    gone = [one.topic for one in _living(context) if matches(one.topic, pattern)]
    if not gone:
        raise ApiError(404, "NOT_FOUND", "Viewed message doesn't exist")
    for topic in gone:
        context.registry.router.retained.pop(topic, None)
    return empty()


ROUTES = (
    Route("/api/v5/mqtt/retainer/messages", {"GET": listing}),
    Route("/api/v5/mqtt/retainer/message/:topic", {"DELETE": delete}),
)
