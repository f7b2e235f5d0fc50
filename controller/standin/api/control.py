"""`/standin/...`: routes that EMQX does not have, to simulate failures: lost nodes, rows missing on one node."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.standin.api.check import bad_request, problem
from controller.standin.api.web import ApiError, Request, RequestContext, Response, Route, json_response, no_content
from controller.standin.options import HANG_SECONDS
from controller.standin.overrides import apply_overrides
from controller.standin.zones import InvalidSettingError

_DELAY_SECONDS: Final = 0.01  # the killed node may be the one that answers
_TABLES: Final = {"bans": "bans", "clients": "clientid", "users": "username"}


def control_routes(
    actions: Mapping[str, Callable[[str], None]], hang: Callable[[str, float], None]
) -> tuple[Route, ...]:
    """Returns the routes. Each action is called with the name of a node after the response was sent.

    `hang` is called at once, with the seconds after which the cluster gives the node up: `{"seconds": 120}`.
    """

    def later(action: Callable[[str], None]) -> Callable[[RequestContext, Request], Response]:
        def answer(context: RequestContext, request: Request) -> Response:
            name = _known_node(context, request)
            asyncio.get_running_loop().call_later(_DELAY_SECONDS, action, name)
            return Response(202)

        return answer

    def hang_now(context: RequestContext, request: Request) -> Response:
        given: Any = request.json()
        seconds = given.get("seconds", HANG_SECONDS) if isinstance(given, dict) else None
        if not isinstance(seconds, int | float):
            raise bad_request("must be an object with a number in seconds")
        hang(_known_node(context, request), float(seconds))
        return Response(202)

    return (
        *(Route(f"/standin/{name}/:node", {"POST": later(action)}) for name, action in actions.items()),
        Route("/standin/hang/:node", {"POST": hang_now}),
        Route("/standin/hide/:node", {"POST": _hide}),
        Route("/standin/config", {"POST": _configure}),
    )


def _known_node(context: RequestContext, request: Request) -> str:
    name = request.bindings["node"]
    if name not in context.registry.state.nodes:
        raise ApiError(404, "NOT_FOUND", f"no node {name}")
    return name


def _configure(context: RequestContext, request: Request) -> Response:
    """Applies a configuration; see `controller.standin.overrides`."""
    try:
        apply_overrides(context.registry.state, request.json())
    except InvalidSettingError as error:
        raise bad_request(problem(error.path, error.reason, error.value)) from error
    return no_content()


def _hide(context: RequestContext, request: Request) -> Response:
    """Hides rows in the API of one node: `{"bans": [who], "clients": [client id], "users": [user name]}`.

    Access decisions do not change. A row that is written through the node is shown again.
    """
    node = context.registry.state.nodes.get(request.bindings["node"])
    if node is None:
        return json_response(404, {"code": "NOT_FOUND", "message": "no such node"})
    given: Any = request.json()
    if not isinstance(given, dict) or not given.keys() <= _TABLES.keys():
        raise bad_request(f"must be an object with lists in {', '.join(_TABLES)}")
    node.hidden = {(_TABLES[table], str(owner)) for table, owners in given.items() for owner in owners}
    return no_content()
