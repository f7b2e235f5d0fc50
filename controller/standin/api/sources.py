"""`/authorization/sources`: the built-in database and, where it was given one, the file; their order counts."""

from typing import Any

from controller.standin.api.check import Field, bad_request, body_object, symbol, text
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, as_json, empty
from controller.standin.authz import AuthzRuleStore
from controller.standin.limits import MAX_RULES_PER_OWNER
from controller.standin.state import ClusterState, FileAuthzSource

_SOURCES = "/api/v5/authorization/sources"
_DATABASE, _FILE = "built_in_database", "file"
_FIELDS = {
    "type": Field(symbol(_DATABASE, _FILE), required=True),
    "enable": Field(lambda _path, value: bool(value), default=True),
    "max_rules": Field(lambda _path, value: value, default=MAX_RULES_PER_OWNER),
    "rules": Field(text, default=""),
}


def _rows(state: ClusterState) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if state.authz_source is not None:
        rows.append({"enable": state.authz_source, "max_rules": MAX_RULES_PER_OWNER, "type": _DATABASE})
    if state.file_source is not None:
        row = {"enable": state.file_source.enabled, "rules": state.file_source.rules, "type": _FILE}
        rows.insert(0 if state.file_first else len(rows), row)
    return rows


def sources(context: RequestContext, _request: Request) -> Response:
    """The chain of sources."""
    return as_json(200, {"sources": _rows(context.registry.state)})


def add_source(context: RequestContext, request: Request) -> Response:
    """Put a source in front of all others; only two types the stand-in has."""
    given = body_object(request, _FIELDS)
    state = context.registry.state
    if any(row["type"] == given["type"] for row in _rows(state)):
        raise bad_request(f"{{already_exists,{given['type']}}}")
    if given["type"] == _FILE:
        state.file_source, state.file_first = FileAuthzSource(given["enable"], given["rules"]), True
    else:
        state.authz_source, state.file_first = given["enable"], False
    return empty()


def _named(context: RequestContext, request: Request) -> str:
    kind = request.bindings["type"]
    if all(row["type"] != kind for row in _rows(context.registry.state)):
        raise ApiError(404, "NOT_FOUND", f"Not found: {kind}")
    return kind


def show_source(context: RequestContext, request: Request) -> Response:
    """One source."""
    kind = _named(context, request)
    return as_json(200, next(row for row in _rows(context.registry.state) if row["type"] == kind))


def change_source(context: RequestContext, request: Request) -> Response:
    """Enable or disable it, or give the file other rules."""
    kind = _named(context, request)
    given = body_object(request, _FIELDS)
    if kind == _FILE:
        context.registry.state.file_source = FileAuthzSource(given["enable"], given["rules"])
    else:
        context.registry.state.authz_source = given["enable"]
    return empty()


def delete_source(context: RequestContext, request: Request) -> Response:
    """Delete it, and with the database every rule, as EMQX does."""
    state = context.registry.state
    if _named(context, request) == _FILE:
        state.file_source = None
        return empty()
    state.authz_source = None
    state.rules = AuthzRuleStore()
    return empty()


def move_source(context: RequestContext, request: Request) -> Response:
    """Change its place in the chain."""
    kind = _named(context, request)
    position = body_object(request, {"position": Field(text, required=True)})["position"]
    where, _, other = position.partition(":")
    state = context.registry.state
    if position in ("front", "rear"):
        state.file_first = (kind == _FILE) == (position == "front")
        return empty()
    if where not in ("before", "after") or not other:
        raise bad_request(f"Invalid position: {position}")
    if all(row["type"] != other for row in _rows(state)) or other == kind:
        raise ApiError(404, "NOT_FOUND", f"Not found: {other}")
    state.file_first = (kind == _FILE) == (where == "before")
    return empty()


ROUTES = (
    Route(_SOURCES, {"GET": sources, "POST": add_source}),
    Route(f"{_SOURCES}/:type", {"GET": show_source, "PUT": change_source, "DELETE": delete_source}),
    Route(f"{_SOURCES}/:type/move", {"POST": move_source}),
)
