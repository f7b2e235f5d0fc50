"""Requests, responses and errors of the API as EMQX shapes them."""

import base64
import binascii
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from controller.standin.registry import ClientRegistry
from controller.standin.state import NodeState

_LOG = logging.getLogger(__name__)

NOT_FOUND_PAGE = b"<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; `body` is ready to send."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class ApiError(Exception):
    """An answer with `code` and `message`, which ends the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = as_json(status, {"code": code, "message": message})


def as_json(status: int, value: object) -> Response:
    """A JSON answer."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode(), "application/json")


def empty() -> Response:
    """204."""
    return Response(204)


def compact(value: object) -> str:
    """JSON inside an error message, as EMQX puts it there."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the handlers see it."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    bindings: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        """The value of a query parameter."""
        return next((v for k, v in self.query if k == name), None)

    def every(self, *names: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return [v for k, v in self.query if k in names]

    def json(self) -> Any:
        """The body.

        Raises:
            ApiError: as EMQX, when it is no JSON; an empty body reads as an empty object.
        """
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "BAD_REQUEST", "Invalid json message received") from error


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a handler may use: the shared state and the node that was asked."""

    registry: ClientRegistry
    node: NodeState


Handler = Callable[[RequestContext, Request], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """One path pattern; segments that begin with `:` are bound."""

    pattern: str
    handlers: Mapping[str, Handler]
    open: bool = False  # needs no credentials

    def bind(self, segments: list[str]) -> dict[str, str] | None:
        """The bound segments, or None when the path is another."""
        wanted = self.pattern.strip("/").split("/")
        if len(wanted) != len(segments):
            return None
        bound: dict[str, str] = {}
        for want, got in zip(wanted, segments, strict=True):
            if want.startswith(":"):
                bound[want[1:]] = unquote(got)
            elif want != got:
                return None
        return bound


@dataclass(slots=True)
class HttpApi:
    """Finds the handler of a request; the order of checks is EMQX's: path, method, credentials, body."""

    context: RequestContext
    routes: tuple[Route, ...]
    key: str
    secret: str

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """The response to a request; `target` is the raw request target."""
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
            try:
                if not route.open:
                    self._authorize(headers.get("authorization"), path)
                return handler(self.context, request)
            except ApiError as error:
                return error.response
            except Exception as error:  # noqa: BLE001 -- the outermost edge of a request
                # as EMQX: a handler that fails answers 500 and harms no other request
                _LOG.exception("%s %s failed", method, path)
                return ApiError(500, "INTERNAL_ERROR", f"error, {type(error).__name__}, {error}").response
        return Response(404, NOT_FOUND_PAGE, "text/html")

    def _authorize(self, header: str | None, path: str) -> None:
        scheme, _, value = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            if self.context.registry.state.dashboard.knows(value):
                return
            raise ApiError(401, "BAD_TOKEN", "Get a token by POST /login")
        if scheme.lower() != "basic":
            raise ApiError(401, "AUTHORIZATION_HEADER_ERROR", "Support authorization: basic/bearer ")
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
