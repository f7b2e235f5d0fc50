"""`/standin/...`: what EMQX does not have, to bring about what befalls real nodes: death, rows that one missed."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from controller.standin.api.check import bad_request, problem
from controller.standin.api.web import Request, RequestContext, Response, Route, as_json, empty
from controller.standin.overrides import apply_overrides
from controller.standin.settings import InvalidSettingError

_AFTER_THE_ANSWER: Final = 0.01  # seconds; the node that is killed may be the one that answers
_TABLES: Final = {"bans": "bans", "clients": "clientid", "users": "username"}


def own_routes(
    kill: Callable[[str], None], restart: Callable[[str], None], is_known: Callable[[str], bool]
) -> tuple[Route, ...]:
    """The routes; `kill` lets the named node die, `restart` too, and brings it back after a moment."""

    def later(what: Callable[[str], None]) -> Callable[[RequestContext, Request], Response]:
        def answer(_context: RequestContext, request: Request) -> Response:
            name = request.bindings["node"]
            if not is_known(name):
                return as_json(404, {"code": "NOT_FOUND", "message": f"no node {name}"})
            asyncio.get_running_loop().call_later(_AFTER_THE_ANSWER, what, name)
            return Response(202)

        return answer

    return (
        Route("/standin/kill/:node", {"POST": later(kill)}),
        Route("/standin/restart/:node", {"POST": later(restart)}),
        Route("/standin/hide/:node", {"POST": _hide}),
        Route("/standin/config", {"POST": _configure}),
    )


def _configure(context: RequestContext, request: Request) -> Response:
    """Take a configuration over; see `controller.standin.overrides`."""
    try:
        apply_overrides(context.registry.state, request.json())
    except InvalidSettingError as error:
        raise bad_request(problem(error.path, error.reason, error.value)) from error
    return empty()


def _hide(context: RequestContext, request: Request) -> Response:
    """Let a node show none of the rows named: `{"bans": [who], "clients": [client id], "users": [user name]}`.

    It is only what that node's API tells; who may connect stays the same. A row written through the node shows again.
    """
    node = context.registry.state.nodes.get(request.bindings["node"])
    if node is None:
        return as_json(404, {"code": "NOT_FOUND", "message": "no such node"})
    given: Any = request.json()
    if not isinstance(given, dict) or not given.keys() <= _TABLES.keys():
        raise bad_request(f"an object with lists by the names {', '.join(_TABLES)}")
    node.hidden = {(_TABLES[table], str(owner)) for table, owners in given.items() for owner in owners}
    return empty()
