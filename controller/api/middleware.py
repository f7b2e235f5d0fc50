"""Middleware: limits request bodies, refuses ambiguous ones, adds headers, reads those of trusted proxies."""

import asyncio
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.errors import answer
from controller.domain.client_address import counted_as
from controller.domain.scopes import Scope as TokenScope
from controller.service.conflicts import MAY_GIVE_UP

MAX_BODY: Final = 64 * 1024  # bytes
MAX_POLICY_BODY: Final = 2 * 1024 * 1024  # bytes; for policy files, knowledge and templates
MAX_PUBLIC_BODY: Final = 16 * 1024  # bytes; without a valid token: an enrolment has two or three thousand
# Keys and objects of a body. Each costs the event loop microseconds, and containments wait meanwhile.
MAX_PUBLIC_KEYS: Final = 128
MAX_KEYS: Final = 4_096
MAX_POLICY_KEYS: Final = 5_000
_LARGER: Final = {  # and the token scope that permits it
    "/api/v1/policies/preview": TokenScope.POLICY,
    "/api/v1/knowledge": TokenScope.POLICY,
    "/api/v1/access/plan": TokenScope.READ,
    "/api/v1/access/apply": TokenScope.POLICY,
}
_SHOWN: Final = 100  # characters of a repeated key
_ESCAPES: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_NOT_STORABLE: Final = "a text has the character NUL, or half a surrogate pair"
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)


MAX_BODIES: Final = 64 * 1024 * 1024  # bytes of all bodies that are held at a time
MAX_BODIES_PER_ADDRESS: Final = 16 * 1024 * 1024  # bytes; room for eight of the largest
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class BodyMemory:
    """Counts the bytes of the bodies that requests hold, in all and per address, an IPv6 /64 as one."""

    def __init__(self, total: int = MAX_BODIES, per_address: int = MAX_BODIES_PER_ADDRESS) -> None:
        self._total = total
        self._per_address = per_address
        self._held: Counter[str] = Counter()
        self._sum = 0

    @property
    def held(self) -> int:
        """Bytes now."""
        return self._sum

    def take(self, address: str, count: int) -> bool:
        """Counts bytes; False, without counting them, where a bound would be exceeded."""
        address = counted_as(address)
        if self._sum + count > self._total or self._held[address] + count > self._per_address:
            return False
        self._held[address] += count
        self._sum += count
        return True

    def release(self, address: str, count: int) -> None:
        address = counted_as(address)
        self._sum -= count
        self._held[address] -= count
        if self._held[address] <= 0:
            del self._held[address]


class RequestLimitMiddleware:
    """ASGI middleware; refuses a body by its Content-Length, or when it is too large, has too many keys or repeats one.

    It refuses texts that cannot be stored, too.

    `scopes_of` returns the scopes of the valid token of a request, None without one: nobody without a token makes the
    event loop read much. Without `scopes_of` everybody may send what the path permits.
    """

    def __init__(
        self,
        app: ASGIApp,
        memory: BodyMemory | None = None,
        scopes_of: Callable[[Scope], Awaitable[Collection[str] | None]] | None = None,
    ) -> None:
        self._app = app
        self._memory = BodyMemory() if memory is None else memory
        self._scopes_of = scopes_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                own = {name for name, _ in headers}  # pages have their own
                message["headers"] = [*headers, *(each for each in _HEADERS if each[0] not in own)]
            await send(message)

        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            await answer(422, "invalid", _NOT_STORABLE)(scope, receive, decorated)
            return
        most = MAX_POLICY_BODY if scope["path"] in _LARGER else MAX_BODY
        announced = _announced(scope, most)
        bound = await self._bound(scope) if announced <= most else _Bound(most, 0)
        if announced > bound.size:
            await answer(413, "body_too_large", bound.text)(scope, receive, decorated)
            return
        body = _Bounded(receive, bound, self._memory, (scope["client"] or ("",))[0])
        waits = MAY_GIVE_UP.set(True)
        try:
            await self._app(scope, body.receive, decorated)
        finally:
            MAY_GIVE_UP.reset(waits)
            body.release()

    async def _bound(self, scope: Scope) -> "_Bound":
        """What this request may send; the token is looked at before a byte of the body is read."""
        wanted = _LARGER.get(scope["path"])
        policy, ordinary = _Bound(MAX_POLICY_BODY, MAX_POLICY_KEYS), _Bound(MAX_BODY, MAX_KEYS)
        if self._scopes_of is None:
            return ordinary if wanted is None else policy
        scopes = await self._scopes_of(scope)
        if scopes is None:
            return _Bound(MAX_PUBLIC_BODY, MAX_PUBLIC_KEYS, " without a valid token")
        if wanted is None:
            return ordinary
        return policy if wanted in scopes else _Bound(MAX_BODY, MAX_KEYS, f" without the scope {wanted.value}")


@dataclass(frozen=True, slots=True)
class _Bound:
    """Most bytes, and most keys and objects, of a body."""

    size: int
    keys: int
    why: str = ""

    @property
    def text(self) -> str:
        return f"a body{self.why} has at most {self.size} bytes"


class _Bounded:
    def __init__(self, receive: Receive, bound: _Bound, memory: BodyMemory, address: str) -> None:
        self._receive = receive
        self._bound = bound
        self._memory = memory
        self._address = address
        self._size = 0
        self._body = bytearray()

    async def receive(self) -> Message:
        message = await self._receive()
        count = len(message.get("body", b""))
        if self._size + count > self._bound.size:
            raise HTTPException(413, self._bound.text)
        if not self._memory.take(self._address, count):
            raise HTTPException(503, "too many bodies are under way: try again", {"Retry-After": "5"})
        self._size += count
        self._body += message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            check = partial(_check_json, bytes(self._body), self._bound.keys)
            if self._size > MAX_BODY:
                await asyncio.to_thread(check)
            else:
                check()
        return message

    def release(self) -> None:
        self._memory.release(self._address, self._size)


def _check_json(body: bytes, most: int) -> None:
    """Of a repeated key programs take the first or the last value: what was checked on the way is not what counts.

    Raises:
        HTTPException: an object has a key twice, there are more than `most` keys and objects, or a text is none that
            the store can hold. What is no JSON is left to the route.
    """
    left = most

    def counted(pairs: list[tuple[str, Any]]) -> None:
        nonlocal left
        left -= len(pairs) + 1
        if left < 0:
            raise HTTPException(413, f"a body like this has at most {most} keys and objects")
        found: set[str] = set()
        for name, _ in pairs:
            if name in found:
                raise HTTPException(422, f"the key {name[:_SHOWN]!r} is there more than once")
            found.add(name)

    with suppress(ValueError, RecursionError):
        json.loads(body or b"null", object_pairs_hook=counted)
        # JSON has these characters as escapes only.
        if _ESCAPES.search(body) is not None and not _is_storable(json.loads(body)):
            raise HTTPException(422, _NOT_STORABLE)


def _is_storable(value: object) -> bool:
    """Whether every text in a value of JSON is Unicode without NUL, which PostgreSQL refuses."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and _UNSTORABLE.search(one) is not None:
            return False
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
    return True


def _announced(scope: Scope, most: int) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else most + 1
    return 0


class ForwardedHeaders:
    """ASGI middleware; takes client and scheme from `X-Forwarded-For` and `X-Forwarded-Proto` of trusted proxies.

    Without proxies the headers mean nothing: whoever connects could name any address.
    """

    def __init__(self, app: ASGIApp, proxies: tuple[IpNetwork, ...]) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if self._proxies and scope["type"] == "http" and client is not None and self._is_proxy(client[0]):
            scope["client"] = (self._forwarded_for(scope) or client[0], client[1])
            schemes = _values(scope, b"x-forwarded-proto")
            if schemes and schemes[-1] in ("http", "https"):
                scope["scheme"] = schemes[-1]
        await self._app(scope, receive, send)

    def _forwarded_for(self, scope: Scope) -> str | None:
        """The last address that no trusted proxy has; each proxy appends the one that it saw."""
        for text in reversed(_values(scope, b"x-forwarded-for")):
            try:
                address = str(ipaddress.ip_address(text))
            except ValueError:
                return None  # not written by a proxy that does its work
            if not self._is_proxy(address):
                return address
        return None

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def _values(scope: Scope, wanted: bytes) -> list[str]:
    """The comma-separated values of all headers of this name."""
    joined = b",".join(value for name, value in scope["headers"] if name == wanted)
    return [part.strip() for part in joined.decode("latin-1").split(",") if part.strip()]
