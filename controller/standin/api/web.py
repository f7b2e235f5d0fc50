"""Requests, responses and errors of the API, in EMQX's formats."""

import base64
import binascii
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from controller.standin.api.scopes import is_in_scope
from controller.standin.registry import ClientRegistry
from controller.standin.state import NodeState

_LOG = logging.getLogger(__name__)

NOT_FOUND_PAGE = b"<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its encoded body."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PendingResponse:
    """A response that is made once no node is hung any more."""

    later: Callable[[], Response]


class ApiError(Exception):
    """Ends the request with a response of `code` and `message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = json_response(status, {"code": code, "message": message})


def json_response(status: int, value: object) -> Response:
    """Returns a response with a JSON body."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode(), "application/json")


def no_content() -> Response:
    return Response(204)


def compact(value: object) -> str:
    """Returns compact JSON, as EMQX includes it in error messages."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request; `bindings` has the bound segments of the path."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    bindings: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        """Returns the first value of a query parameter."""
        return next((v for k, v in self.query if k == name), None)

    def every(self, *names: str) -> list[str]:
        """Returns all values of query parameters with these names."""
        return [v for k, v in self.query if k in names]

    def accepts_only(self, content_type: str) -> bool:
        """Whether the request accepts this type and not every type."""
        accepted = [part.partition(";")[0].strip() for part in self.headers.get("accept", "*/*").split(",")]
        return content_type in accepted and "*/*" not in accepted

    def json(self) -> Any:
        """Returns the parsed body; an empty object for an empty body.

        Raises:
            ApiError: the body is not JSON.
        """
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "BAD_REQUEST", "Invalid json message received") from error


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The shared state, and the node that received the request."""

    registry: ClientRegistry
    node: NodeState


Handler = Callable[[RequestContext, Request], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """A path pattern with its handlers by method; segments starting with `:` are bound."""

    pattern: str
    handlers: Mapping[str, Handler]
    open: bool = False  # needs no credentials

    def bind(self, segments: list[str]) -> dict[str, str] | None:
        """Returns the bound segments; None when the path does not match."""
        pattern = self.pattern.strip("/").split("/")
        if len(pattern) != len(segments):
            return None
        bound: dict[str, str] = {}
        for expected, segment in zip(pattern, segments, strict=True):
            if expected.startswith(":"):
                bound[expected[1:]] = unquote(segment)
            elif expected != segment:
                return None
        return bound


@dataclass(slots=True)
class HttpApi:
    """Dispatches requests to handlers; checks path, method, credentials and body, in EMQX's order."""

    context: RequestContext
    routes: tuple[Route, ...]
    key: str
    secret: str
    # Answers a request while a node is hung.
    while_hung: Callable[[RequestContext, Route, Request, Callable[[], Response]], Response | PendingResponse]

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response | PendingResponse:
        """Returns the response to a request; `target` is the raw request target."""
        path, _, query = target.partition("?")
        segments = path.strip("/").split("/")
        for route in self.routes:
            bound = route.bind(segments)
            if bound is None:
                continue
            handler = route.handlers.get(method)
            if handler is None:
                return Response(405, headers=(("allow", ", ".join(route.handlers)),))
            request = Request(method, path, tuple(parse_qsl(query, keep_blank_values=True)), headers, body, bound)
            return self._respond(route, handler, request)
        return Response(404, NOT_FOUND_PAGE, "text/html")

    def _respond(self, route: Route, handler: Handler, request: Request) -> Response | PendingResponse:
        try:
            if not route.open:
                self._authorize(request.headers.get("authorization"), request.path)
        except ApiError as error:
            return error.response

        def handle() -> Response:
            try:
                return handler(self.context, request)
            except ApiError as error:
                return error.response
            except Exception as error:  # noqa: BLE001 -- the outermost edge of a request
                # As EMQX: a failing handler answers 500 and affects no other request.
                _LOG.exception("%s %s failed", request.method, request.path)
                return ApiError(500, "INTERNAL_ERROR", f"error, {type(error).__name__}, {error}").response

        if self.context.registry.state.is_hung():
            return self.while_hung(self.context, route, request, handle)
        return handle()

    def _authorize(self, header: str | None, path: str) -> None:
        scheme, _, value = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            if self.context.registry.state.dashboard.is_valid_token(value):
                return
            raise ApiError(401, "BAD_TOKEN", "Get a token by POST /login")
        if scheme.lower() != "basic":
            raise ApiError(401, "AUTHORIZATION_HEADER_ERROR", self.context.registry.state.release.no_credentials)
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            given = b""
        if path.startswith("/api/v5/api_key"):
            raise ApiError(
                401,
                "API_KEY_NOT_ALLOW",
                "Please use bearer Token instead, using API key/secret in api_key path is not permitted",
            )
        if not hmac.compare_digest(given, f"{self.key}:{self.secret}".encode()):
            raise ApiError(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
        state = self.context.registry.state
        if state.release.has_scopes and not is_in_scope(path.removeprefix("/api/v5"), state.api_scopes):
            raise ApiError(403, "UNAUTHORIZED_ROLE", "You don't have permission to access this resource")
