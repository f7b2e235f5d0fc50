"""`/publish`: messages published over HTTP; access rules do not apply."""

import base64
import binascii
from typing import Any

from controller.standin.api.check import (
    Field,
    FieldError,
    body_object,
    body_objects,
    boolean,
    number,
    one_of,
    problem,
    struct,
    text,
)
from controller.standin.api.web import Request, RequestContext, Response, Route, json_response
from controller.standin.messages import NO_PROPERTIES, Message, PublishProperties
from controller.standin.options import EXPIRY_NEVER, MAX_PACKET_BYTES, MAX_PAGE_ROWS
from controller.standin.topics import DELAYED_PREFIX, valid_name

_NO_SUBSCRIBERS, _IMPLEMENTATION_SPECIFIC, _TOPIC_NAME_INVALID, _QUOTA_EXCEEDED = 16, 131, 144, 151
_HTTP_SENDER = "http_api"


def _user_properties(path: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise FieldError(problem(path, "bad_value_for_map", value))
    return tuple(value.items())


_PROPERTIES = {
    "payload_format_indicator": Field(number(0, 1), default=0),
    "message_expiry_interval": Field(number(0, EXPIRY_NEVER)),
    "response_topic": Field(text),
    "correlation_data": Field(text),
    "user_properties": Field(_user_properties, default=()),
    "content_type": Field(text),
}


def _properties(path: str, value: Any) -> tuple[PublishProperties, int | None]:
    given, wrong = struct(path, value, _PROPERTIES)
    if wrong:
        raise FieldError(wrong[0])
    data = given["correlation_data"]
    properties = PublishProperties(
        given["payload_format_indicator"],
        given["content_type"],
        given["response_topic"],
        None if data is None else data.encode(),
        given["user_properties"],
    )
    return properties, given["message_expiry_interval"]


_MESSAGE = {
    "topic": Field(text, required=True),
    "payload": Field(text, required=True),
    "qos": Field(number(0, 2), default=0),
    "retain": Field(boolean, default=False),
    "payload_encoding": Field(one_of("plain", "base64"), default="plain"),
    "properties": Field(_properties, default=(NO_PROPERTIES, None)),
    "clientid": Field(text),  # accepted and without effect, as in EMQX
}


def _refusal(given: dict[str, Any]) -> tuple[int, str] | bytes:
    """Returns the payload, or reason code and text when the message cannot be published."""
    payload: bytes = given["payload"].encode()
    if given["payload_encoding"] == "base64":
        try:
            payload = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            text = f'{{decode_base64_payload_failed,<<"{given["payload"]}">>}}'
            return _IMPLEMENTATION_SPECIFIC, text
    if not valid_name(given["topic"]):
        return _TOPIC_NAME_INVALID, "topic_name_invalid"
    if len(payload) + len(given["topic"].encode()) > MAX_PACKET_BYTES:
        return _QUOTA_EXCEEDED, "packet_too_large"
    return payload


def _error(code: int, message: str) -> dict[str, object]:
    return {"message": message, "reason_code": code}


def _publish(context: RequestContext, given: dict[str, Any], payload: bytes) -> tuple[int, dict[str, object]]:
    state = context.registry.state
    properties, expiry = given["properties"]
    message = Message(
        state.message_id(),
        given["topic"],
        payload,
        given["qos"],
        given["retain"],
        _HTTP_SENDER,
        None,
        state.now(),
        expiry,
        properties,
    )
    reached = context.registry.router.publish(message)
    if reached or message.topic.startswith(DELAYED_PREFIX):
        return 200, {"id": message.id}
    return 202, _error(_NO_SUBSCRIBERS, "no_matching_subscribers")


def publish(context: RequestContext, request: Request) -> Response:
    """Publishes a message: 200 with a subscriber, 202 without."""
    given = body_object(request, _MESSAGE)
    payload = _refusal(given)
    if isinstance(payload, tuple):
        return json_response(400, _error(*payload))
    return json_response(*_publish(context, given, payload))


def publish_many(context: RequestContext, request: Request) -> Response:
    """Publishes several messages, all or none; 202 when one of them has no subscriber."""
    batch = body_objects(request, _MESSAGE, MAX_PAGE_ROWS)
    ready: list[tuple[dict[str, Any], bytes]] = []
    for given in batch:
        payload = _refusal(given)
        if isinstance(payload, tuple):
            return json_response(400, _error(*payload))
        ready.append((given, payload))
    if not ready:
        return json_response(400, _error(_IMPLEMENTATION_SPECIFIC, "empty_batch"))
    results = [_publish(context, given, payload) for given, payload in ready]
    return json_response(max(code for code, _ in results), [body for _, body in results])


ROUTES = (
    Route("/api/v5/publish", {"POST": publish}),
    Route("/api/v5/publish/bulk", {"POST": publish_many}),
)
