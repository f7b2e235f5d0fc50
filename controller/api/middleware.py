"""Middleware: limits request bodies, and adds security headers to responses."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.api.errors import answer

MAX_BODY: Final = 64 * 1024  # bytes
MAX_POLICY_BODY: Final = 2 * 1024 * 1024  # bytes; for policy files and templates
_LARGER: Final = {
    "/api/v1/policies/preview": MAX_POLICY_BODY,
    "/api/v1/access/plan": MAX_POLICY_BODY,
    "/api/v1/access/apply": MAX_POLICY_BODY,
}
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)


class RequestLimitMiddleware:
    """ASGI middleware; refuses a body by its Content-Length, or else when it exceeds the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        most = _LARGER.get(scope["path"], MAX_BODY)
        if _announced(scope, most) > most:
            await answer(413, "body_too_large", _too_large(most))(scope, receive, decorated)
            return
        await self._app(scope, _Bounded(receive, most).receive, decorated)


class _Bounded:
    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._size = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise HTTPException(413, _too_large(self._most))
        return message


def _too_large(most: int) -> str:
    return f"a body has at most {most} bytes"


def _announced(scope: Scope, most: int) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else most + 1
    return 0
