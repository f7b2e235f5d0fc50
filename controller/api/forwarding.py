"""Middleware between the controllers of one store: what only the leader does is forwarded to it, once.

The leader sees the client's own address: it is in a header that only controllers can seal, and each seal counts once.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.context import NoLeaderError
from controller.api.errors import answer, api_problem, http_problem
from controller.api.forwarding_places import BusyError, ForwardingPlaces
from controller.api.leader_routes import needs_leader
from controller.domain.forwarded_origin import MAX_AGE, Origin, RequestFacts, open_seal, seal
from controller.ports.log import Log
from controller.ports.peers import PeerAnswer, PeerError, PeerRequest, Peers, UnsendableRequestError

HEADER: Final = b"x-cordon-forwarded"
MAX_SECONDS: Final = 300.0  # of one forwarded request, its answer included
_FORWARDED: Final = "cordon.forwarded"  # key in the scope of a request that another controller forwarded
# Of one connection, and of proxies on the way here: the next connection has its own.
_NOT_FORWARDED: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"expect",
        b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", HEADER,
    }
)  # fmt: skip
_NOT_ANSWERED: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer", b"date"})
_MAY_BE_NAMED: Final = frozenset({"", "close", "keep-alive", "te", "trailers"})  # in `Connection`


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """What forwarding needs. `key`: of all controllers of the store. `leader_url`: empty if none is known.

    `leads`: whether this controller answers itself. `now` returns Unix seconds.
    """

    key: bytes
    peers: Peers
    leads: Callable[[], bool]
    leader_url: Callable[[], str]
    now: Callable[[], float]
    log: Log


class PeerOrigin:
    """Takes client and scheme of a request from its seal. A seal that is not valid is refused: no client sends any."""

    def __init__(self, app: ASGIApp, access: PeerAccess) -> None:
        self._app = app
        self._access = access
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seals = [value for name, value in scope.get("headers", ()) if name == HEADER]
        if scope["type"] != "http" or not seals:
            await self._app(scope, receive, send)
            return
        origin = self._opened(scope, seals)
        if origin is None:
            refusal = answer(400, "forwarding_refused", "this header is for controllers of this store alone")
            await refusal(scope, receive, send)
            return
        headers = [one for one in scope["headers"] if one[0] != HEADER]
        own = {"client": (origin.address, 0), "scheme": origin.scheme, "headers": headers, _FORWARDED: True}
        await self._app({**scope, **own}, receive, send)

    def _opened(self, scope: Scope, seals: list[bytes]) -> Origin | None:
        now = self._access.now()
        while self._seen and next(iter(self._seen.values())) < now - 2 * MAX_AGE:
            self._seen.popitem(last=False)
        if len(seals) > 1 or seals[0] in self._seen:
            return None
        origin = open_seal(seals[0].decode("latin-1"), _facts_of(scope), now, self._access.key)
        if origin is not None:
            self._seen[seals[0]] = now
        return origin


class LeaderForwarding:
    """Forwards to the leader what this controller does not answer itself; a forwarded request is never forwarded."""

    def __init__(self, app: ASGIApp, access: PeerAccess) -> None:
        self._app = app
        self._access = access
        self._places = ForwardingPlaces()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._access.leads() or not _is_for_leader(scope):
            await self._app(scope, receive, send)
            return
        base = self._access.leader_url()
        fault = _fault(scope)
        if fault:
            await answer(400, "bad_request", fault)(scope, receive, send)
        elif not base or scope.get(_FORWARDED):
            await _no_leader(scope, receive, send)
        else:
            try:
                body = await _body(receive)
            except HTTPException as e:
                await http_problem(e)(scope, receive, send)
                return
            if body is not None:
                await self._until_gone(base, self._request(scope, body), scope, receive, send)

    def _request(self, scope: Scope, body: bytes) -> PeerRequest:
        facts, access = _facts_of(scope), self._access
        headers = [one for one in scope["headers"] if one[0] not in _NOT_FORWARDED]
        origin = Origin((scope.get("client") or ("",))[0], scope["scheme"], access.now(), secrets.token_hex(8))
        headers.append((HEADER, seal(origin, facts, access.key).encode()))
        return PeerRequest(facts.method, facts.target, headers, body)

    async def _until_gone(self, base: str, request: PeerRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Ends the forwarded request when its client disconnects."""
        async with asyncio.TaskGroup() as group:
            exchange = group.create_task(self._exchange(base, request, scope, receive, send), name="forwarded")
            gone = group.create_task(_disconnected(receive), name="forwarded-disconnect")
            await asyncio.wait((exchange, gone), return_when=asyncio.FIRST_COMPLETED)
            exchange.cancel()
            gone.cancel()

    async def _exchange(self, base: str, request: PeerRequest, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def begun(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with (
                self._places.hold(scope),
                asyncio.timeout(MAX_SECONDS),
                self._access.peers.send(base, request) as found,
            ):
                await _pass_on(found, begun)
        except BusyError as e:
            await api_problem(e)(scope, receive, send)
        except UnsendableRequestError as e:
            await answer(400, "bad_request", str(e))(scope, receive, send)
        except (PeerError, TimeoutError) as e:
            was_sent = not isinstance(e, PeerError) or e.was_sent
            self._access.log("the leader did not answer", {"leader": base, "error": str(e), "was_sent": was_sent})
            if has_begun:
                raise  # the connection ends: what the client has is not the whole answer
            if was_sent and request.method not in ("GET", "HEAD"):
                text = "the leader was asked and did not answer: look whether it was done"
                await answer(502, "leader_lost", text)(scope, receive, send)
            else:
                await _no_leader(scope, receive, send)


def _is_for_leader(scope: Scope) -> bool:
    """Only what this application serves: what is public at one listener is not reached through another one."""
    if not needs_leader(scope["method"], scope["path"]):
        return False
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)


async def _pass_on(found: PeerAnswer, send: Send) -> None:
    headers = [one for one in found.headers if one[0].lower() not in _NOT_ANSWERED]
    await send({"type": "http.response.start", "status": found.status, "headers": headers})
    async for chunk in found.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _no_leader(scope: Scope, receive: Receive, send: Send) -> None:
    await api_problem(NoLeaderError())(scope, receive, send)


async def _body(receive: Receive) -> bytes | None:
    """The whole body, which an outer middleware bounds; `None` if the client has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _fault(scope: Scope) -> str:
    """Why a request is not forwarded: the next server might read another one in it."""
    named = b",".join(value for name, value in scope["headers"] if name == b"connection").decode("latin-1")
    if not {part.strip().lower() for part in named.split(",")} <= _MAY_BE_NAMED:
        return "the header Connection names headers that would be dropped"
    if sum(name == b"host" for name, _ in scope["headers"]) != 1:
        return "a request has one header Host"
    return ""


def _facts_of(scope: Scope) -> RequestFacts:
    def joined(wanted: bytes) -> bytes:
        return b"\n".join(value for name, value in scope["headers"] if name == wanted)

    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    return RequestFacts(scope["method"], target, joined(b"host"), joined(b"authorization"), joined(b"cookie"))
