"""`/authorization/sources`: the built-in database and the file, in their order of evaluation."""

from typing import Any

from controller.standin.api.check import Field, bad_request, body_object, one_of, text
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.authz import AuthzRuleStore
from controller.standin.options import MAX_RULES_PER_OWNER
from controller.standin.state import ClusterState, FileAuthzSource

_SOURCES = "/api/v5/authorization/sources"
_DATABASE, _FILE = "built_in_database", "file"
_FIELDS = {
    "precondition": Field(text, default=""),  # 6.x
    "type": Field(one_of(_DATABASE, _FILE), required=True),
    "enable": Field(lambda _path, value: bool(value), default=True),
    "max_rules": Field(lambda _path, value: value, default=MAX_RULES_PER_OWNER),
    "rules": Field(text, default=""),
}


def _rows(state: ClusterState) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if state.authz_source is not None:
        row = {"enable": state.authz_source, "max_rules": MAX_RULES_PER_OWNER, "type": _DATABASE}
        rows.append({**row, **state.release.source})
    if state.file_source is not None:
        row = {"enable": state.file_source.enabled, "rules": state.file_source.rules, "type": _FILE}
        rows.insert(0 if state.file_first else len(rows), {**row, **state.release.source})
    return rows


def sources(context: RequestContext, _request: Request) -> Response:
    """Lists the sources, in order."""
    return json_response(200, {"sources": _rows(context.registry.state)})


def add_source(context: RequestContext, request: Request) -> Response:
    """Adds a source in front of all others; the stand-in has two types."""
    given = body_object(request, _FIELDS)
    state = context.registry.state
    if any(row["type"] == given["type"] for row in _rows(state)):
        raise bad_request(f"{{already_exists,{given['type']}}}")
    if given["type"] == _FILE:
        state.file_source, state.file_first = FileAuthzSource(given["enable"], given["rules"]), True
    else:
        state.authz_source, state.file_first = given["enable"], False
    return no_content()


def _named(context: RequestContext, request: Request) -> str:
    kind = request.bindings["type"]
    if all(row["type"] != kind for row in _rows(context.registry.state)):
        raise ApiError(404, "NOT_FOUND", f"Not found: {kind}")
    return kind


def show_source(context: RequestContext, request: Request) -> Response:
    """Returns a source."""
    kind = _named(context, request)
    return json_response(200, next(row for row in _rows(context.registry.state) if row["type"] == kind))


def change_source(context: RequestContext, request: Request) -> Response:
    """Enables or disables a source, or replaces the rules of the file."""
    kind = _named(context, request)
    given = body_object(request, _FIELDS)
    if kind == _FILE:
        context.registry.state.file_source = FileAuthzSource(given["enable"], given["rules"])
    else:
        context.registry.state.authz_source = given["enable"]
    return no_content()


def delete_source(context: RequestContext, request: Request) -> Response:
    """Deletes a source; with the built-in database, all its rules, as EMQX does."""
    state = context.registry.state
    if _named(context, request) == _FILE:
        state.file_source = None
        return no_content()
    state.authz_source = None
    state.rules = AuthzRuleStore()
    return no_content()


def move_source(context: RequestContext, request: Request) -> Response:
    """Changes the position of a source."""
    kind = _named(context, request)
    position = body_object(request, {"position": Field(text, required=True)})["position"]
    where, _, other = position.partition(":")
    state = context.registry.state
    if position in ("front", "rear"):
        state.file_first = (kind == _FILE) == (position == "front")
        return no_content()
    if where not in ("before", "after") or not other:
        raise bad_request(f"Invalid position: {position}")
    if all(row["type"] != other for row in _rows(state)) or other == kind:
        raise ApiError(404, "NOT_FOUND", f"Not found: {other}")
    state.file_first = (kind == _FILE) == (where == "before")
    return no_content()


ROUTES = (
    Route(_SOURCES, {"GET": sources, "POST": add_source}),
    Route(f"{_SOURCES}/:type", {"GET": show_source, "PUT": change_source, "DELETE": delete_source}),
    Route(f"{_SOURCES}/:type/move", {"POST": move_source}),
)
