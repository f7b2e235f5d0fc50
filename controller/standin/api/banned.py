"""`/banned`: lists, creates and deletes bans."""

import re
from datetime import UTC, datetime
from typing import Any

from controller.standin.api.check import (
    Field,
    FieldError,
    FieldProblem,
    bad_request,
    body_object,
    one_of,
    page_of,
    problem,
    text,
)
from controller.standin.api.web import (
    ApiError,
    Request,
    RequestContext,
    Response,
    Route,
    compact,
    json_response,
    no_content,
)
from controller.standin.bans import BAN_KINDS, Ban, BanKind, InvalidBanError, normalise
from controller.standin.options import MAX_BANS

_MAX_EPOCH_SECONDS = 253_402_300_799  # the end of the year 9999, the last of RFC 3339
_ERLANG_LINE = 76  # columns after which the recorded message has a line break
_EXACT: tuple[BanKind, ...] = ("clientid", "username", "peerhost")
_LIKE: dict[str, tuple[BanKind, ...]] = {
    "like_clientid": ("clientid", "clientid_re"),
    "like_username": ("username", "username_re"),
    "like_peerhost": ("peerhost",),
    "like_peerhost_net": ("peerhost_net",),
}


def rfc3339(at: float) -> str:
    """Formats a time as EMQX does in bans."""
    return datetime.fromtimestamp(int(at), UTC).isoformat()


def row(ban: Ban) -> dict[str, Any]:
    """Returns a ban in EMQX's format."""
    return {
        "as": ban.kind,
        "at": rfc3339(ban.at),
        "by": ban.by,
        "reason": ban.reason,
        "until": "infinity" if ban.until is None else rfc3339(ban.until),
        "who": ban.who,
    }


def _epoch(path: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_EPOCH_SECONDS:
        return value
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = None
        if when is not None and when.tzinfo is not None:
            return int(when.timestamp())
    raise FieldError(problem(path, "bad_rfc3339_timestamp", value))


def _until(path: str, value: Any) -> int | None:
    if value == "infinity":
        return None
    try:
        return _epoch(path, value)
    except FieldError as error:
        mismatches: FieldProblem = {
            "infinity": problem(path, f"Expected: infinity, got:{value}", value),
            "emqx_utils_calendar:epoch_second()": error.problem,
        }
        raise FieldError(
            {
                "reason": "matched_no_union_member",
                "path": path,
                "mismatches": mismatches,
                "kind": "validation_error",
            }
        ) from error


_FIELDS = {
    "as": Field(one_of(*BAN_KINDS), required=True),
    "who": Field(text, required=True),
    "by": Field(text, default="mgmt_api"),
    "reason": Field(text, default=""),
    "at": Field(_epoch),
    "until": Field(_until),
}


def create(context: RequestContext, request: Request) -> Response:
    """Creates a ban; a client banned by its id is kicked, on whichever node it is connected."""
    state = context.registry.state
    given = body_object(request, _FIELDS)
    kind: BanKind = given["as"]
    now = state.now()
    try:
        who = normalise(kind, given["who"])
    except InvalidBanError as error:
        raise bad_request(str(error)) from error
    at = int(now) if given["at"] is None else given["at"]
    until = given["until"]
    context.node.hidden.discard(("bans", who))
    if until is not None and until <= int(now):
        as_list = state.release.expired_ban_as_list
        raise bad_request(_expired_text(at, until) if as_list else f"Cannot create expired banned, {at} to {until}")
    if len(state.bans) >= MAX_BANS:
        raise ApiError(500, "INTERNAL_ERROR", f"the stand-in holds no more than {MAX_BANS} bans")
    ban = Ban(kind, who, given["by"], given["reason"], at, until)
    old = state.bans.create(ban, now)
    if old is not None:
        fields = row(old)
        raise ApiError(
            400,
            "ALREADY_EXISTS",
            compact({name: fields[name] for name in ("who", "until", "reason", "by", "at", "as")}),
        )
    if kind == "clientid":
        context.registry.kick(who)
    return json_response(200, row(ban))


def _expired_text(at: int, until: int) -> str:
    """Returns EMQX's error, which it prints as an Erlang list: characters as numbers, the two times as strings."""
    pieces = [str(ord(char)) for char in "Cannot create expired banned, "]
    pieces += [f'"{at}"', *(str(ord(char)) for char in " to "), f'"{until}"']
    lines: list[str] = []
    line = "["
    for index, item in enumerate(pieces):
        piece = item + ("]" if index == len(pieces) - 1 else ",")
        if len(line) + len(piece) > _ERLANG_LINE:
            lines.append(line)
            line = " "
        line += piece
    return "\n".join([*lines, line])


def listing(context: RequestContext, request: Request) -> Response:
    """Lists all bans, or those that match one filter; unknown parameters are ignored, as in EMQX."""
    bans = context.registry.state.bans
    page = page_of(request)
    exact = [(k, v) for k in _EXACT if (v := request.first(k)) is not None]
    like = [(k, v) for k in _LIKE if (v := request.first(k)) is not None]
    if len(exact) + len(like) > 1:
        raise bad_request("too_many_filters")
    if exact:
        kind, who = exact[0]
        try:
            ban = bans.get(kind, normalise(kind, who))
        except InvalidBanError as error:
            raise bad_request(str(error)) from error
        rows = [] if ban is None or ("bans", ban.who) in context.node.hidden else [ban]
        meta = {**page.meta(len(rows)), "hasnext": False}
        return json_response(200, {"data": [row(b) for b in rows], "meta": meta})
    if like:
        rows = _search(bans.rows(), *like[0])
        meta = page.meta(len(rows), counted=False)
        return json_response(200, {"data": [row(b) for b in page.slice(rows)], "meta": meta})
    hidden = context.node.hidden
    rows = [b for b in bans.rows() if not hidden or ("bans", b.who) not in hidden]
    return json_response(200, {"data": [row(b) for b in page.slice(rows)], "meta": page.meta(len(rows), hasnext=False)})


def _search(rows: list[Ban], name: str, pattern: str) -> list[Ban]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise bad_request(
            {
                "reason": error.msg,
                "position": error.pos or 0,
                "message": "The filter is not a validation regex expression",
                "filter": pattern,
            }
        ) from error
    return [b for b in rows if b.kind in _LIKE[name] and compiled.search(b.who)]


def clear(context: RequestContext, _request: Request) -> Response:
    """Deletes all bans."""
    context.registry.state.bans.clear()
    return no_content()


def delete(context: RequestContext, request: Request) -> Response:
    """Deletes a ban."""
    kind, who = request.bindings["as"], request.bindings["who"]
    try:
        known: BanKind = one_of(*BAN_KINDS)("as", kind)
        name = normalise(known, who)
    except FieldError as error:
        raise bad_request(error.problem) from error
    except InvalidBanError:
        name = who
    if not context.registry.state.bans.delete(known, name):
        raise ApiError(404, "NOT_FOUND", f"{kind}: {who} not found")
    return no_content()


ROUTES = (
    Route("/api/v5/banned", {"GET": listing, "POST": create, "DELETE": clear}),
    Route("/api/v5/banned/:as/:who", {"DELETE": delete}),
)
