"""Error responses: `{"error": {"code", "message"}}`."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from controller.ports.errors import (
    BrokerError,
    BrokerUnreachableError,
    ControllerError,
    StoreError,
    UnknownRowError,
)
from controller.ports.fleet_queries import QueryTooLongError

_MAX_PROBLEMS: Final = 10  # problems in one response
_MAX_CHOICES: Final = 500  # characters of a list of permitted values
_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid",
}
_MEANING: Final = {
    400: "the request is malformed",
    401: "no valid token",
    403: "the token lacks the scope",
    404: "not found",
    409: "the request conflicts with the current state",
    413: "the body is too large",
    422: "the request is invalid",
    429: "too many failed attempts",
    502: "the broker refused",
    503: "temporarily unavailable",
}


class ErrorDetail(BaseModel):
    code: str
    message: str


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class ApiError(Exception):
    """An error response; `code` is for programs, `message` for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def seconds_of(name: str, moment: datetime | None) -> float | None:
    """Returns the Unix seconds of the query's parameter `name`.

    Raises:
        ApiError: 422, a time without its zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ApiError(422, "invalid", f"query.{name}: a time needs its zone, as in 2026-11-23T10:00:00Z")
    return moment.timestamp()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the documented error responses of a route; 401 includes 403 for a missing scope."""
    scoped = (403,) if 401 in statuses else ()
    # A body that is too large is refused before routing.
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in (400, 413, *statuses, *scoped)}


def answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns an error response; lone surrogates in the text are replaced."""
    clean = message.encode("utf-8", "replace").decode()
    return JSONResponse({"error": {"code": code, "message": clean}}, status, dict(headers or {}))


def api_problem(error: ApiError) -> JSONResponse:
    """Returns the response of an error of this API."""
    return answer(error.status, error.code, error.message, error.headers)


def http_problem(error: HTTPException) -> JSONResponse:
    """Returns the response of an error that the framework, or a middleware, raises."""
    code = _CODES.get(error.status_code, "refused")
    return answer(error.status_code, code, str(error.detail), error.headers)


async def _api_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return api_problem(error)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return http_problem(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    texts = [f"{'.'.join(str(part) for part in one['loc'])}: {_problem(one)}" for one in error.errors()[:_MAX_PROBLEMS]]
    return answer(422, "invalid", "; ".join(texts))


def _problem(error: Mapping[str, Any]) -> str:
    text = str(error["msg"])
    is_long = error["type"] == "enum" and len(text) > _MAX_CHOICES  # the kinds of audit lines are almost a hundred
    return "is not one of the values in the API's description" if is_long else text


def detail_for(request: Request, text: str) -> str:
    """Returns a text that may name addresses and paths, only to callers with a valid token or session."""
    return text if getattr(request.state, "caller", None) is not None else "only operators are told why"


async def _controller_error(request: Request, error: Exception) -> JSONResponse:
    text = detail_for(request, str(error))
    match error:
        case BrokerUnreachableError():
            return answer(503, "broker_unreachable", text)
        case BrokerError():
            return answer(502, "broker_refused", text)
        case UnknownRowError():
            return answer(404, "page_unknown", text)
        case QueryTooLongError():
            return answer(503, "query_too_long", text)
        case StoreError():
            return answer(503, "store_failed", text)
        case _:
            return answer(500, "failed", text)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logging.getLogger("controller.api").error(
        "request failed: %s %s", request.method, request.scope["path"], exc_info=error
    )
    return answer(500, "internal", "internal error: see the controller's log")


def install(app: FastAPI) -> None:
    """Registers the handlers that turn every exception into an error response."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ControllerError, _controller_error)
    app.add_exception_handler(Exception, _unexpected)
