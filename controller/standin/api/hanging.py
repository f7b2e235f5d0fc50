"""What the API answers while a node of the cluster hangs, as recorded with SIGSTOP: much of it waits for that node."""

from collections.abc import Callable
from typing import Final

from controller.standin.api.web import ApiError, PendingResponse, Request, RequestContext, Response, Route

_API: Final = "/api/v5"
_KICK_MANY: Final = ("POST", f"{_API}/clients/kickout/bulk")
# These ask every node: the healthy ones act at once, and the answer comes when the hung one is back or given up.
_ACT_AND_WAIT: Final = frozenset(
    {
        _KICK_MANY,
        ("DELETE", f"{_API}/clients/:clientid"),
        ("DELETE", f"{_API}/clients/:clientid/authorization/cache"),
        ("DELETE", f"{_API}/authorization/cache"),
    }
)
# Recorded for `/nodes`; the others collect their rows from every node in the same way.
_WAIT: Final = frozenset(
    {
        ("GET", f"{_API}/nodes"),
        ("GET", f"{_API}/clients"),
        ("GET", f"{_API}/clients_v2"),
        ("GET", f"{_API}/subscriptions"),
        ("GET", f"{_API}/listeners"),
        ("GET", f"{_API}/listeners/:id"),
        ("GET", f"{_API}/stats"),
    }
)


def answer_while_hung(
    context: RequestContext, route: Route, request: Request, handle: Callable[[], Response]
) -> Response | PendingResponse:
    """Handles the request now, now with an answer later, or later."""
    key = (request.method, route.pattern)
    if _is_on_hung_node(context, request):
        return PendingResponse(handle)
    if key in _ACT_AND_WAIT:
        response = handle()
        return PendingResponse(lambda: _late_answer(context, key, response))
    if key in _WAIT:
        node = request.first("node")
        return PendingResponse(handle) if node is None or context.registry.state.is_hung(node) else handle()
    return handle()


def _is_on_hung_node(context: RequestContext, request: Request) -> bool:
    state = context.registry.state
    client = state.clients.get(request.bindings.get("clientid", ""))
    if client is not None and request.path.startswith(f"{_API}/clients/"):
        return state.is_hung(client.endpoint.node)
    return request.path.startswith(f"{_API}/nodes/") and state.is_hung(request.bindings["node"])


def _late_answer(context: RequestContext, key: tuple[str, str], response: Response) -> Response:
    if key == _KICK_MANY and len(context.registry.state.running_nodes()) < len(context.registry.state.nodes):
        return ApiError(500, "INTERNAL_ERROR", "nodedown").response
    return response
