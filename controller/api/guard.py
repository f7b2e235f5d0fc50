"""Who may call: bearer tokens of which only the SHA-256 is kept, and a limit on guessing."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from controller.api.context import ServicesDep
from controller.api.errors import ApiError
from controller.ports.store import Token

TOKEN_PREFIX: Final = "cordon_"  # noqa: S105 - lets scanners of repositories find one that leaked
TOKEN_BYTES: Final = 32  # random
MAX_TOKEN: Final = 256  # characters that are looked at
MAX_FAILURES: Final = 20  # failed attempts of one peer within `WINDOW`, before it is told to wait
WINDOW: Final = 60.0  # seconds
MAX_PEERS: Final = 1024  # peers remembered; the one that failed longest ago is forgotten first
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="cordon"'}
_scheme = HTTPBearer(auto_error=False, description="A token made by `cordon init` or `cordon token create`.")


def new_token() -> str:
    """A token to show once; nothing of it is kept but `digest_of`."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """What the store keeps: SHA-256 in hex. A slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Failures:
    """Counts failed attempts of each peer. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, peer: str) -> float:
        """One more failure of `peer`; how many seconds it has to wait, 0 while it may try on."""
        now = self._monotonic()
        began, count = self._peers.pop(peer, (now, 0))
        if now - began >= WINDOW:
            began, count = now, 0
        self._peers[peer] = (began, count + 1)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        return began + WINDOW - now if count + 1 > MAX_FAILURES else 0.0


def match(presented: str, tokens: "list[Token]") -> str | None:
    """The name of the token that was presented; every stored one is compared, in constant time."""
    digest = digest_of(presented)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token.name
    return found


async def caller(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> str:
    """The actor for the record, `operator:<token name>`.

    A valid token is let in whatever others behind the same address did: 256 random bits cannot be guessed, so the
    limit only has to keep guessing cheap for us.

    Raises:
        ApiError: 401 without a valid token, 429 after too many attempts.
    """
    if credentials is not None and len(credentials.credentials) <= MAX_TOKEN:
        name = match(credentials.credentials, list(await services.store.tokens()))
        if name is not None:
            return f"operator:{name}"
    failures = request.app.state.failures
    assert isinstance(failures, Failures)
    wait = failures.note(request.client.host if request.client else "")
    if wait:
        headers = {"Retry-After": str(int(wait) + 1)}
        raise ApiError(429, "too_many_attempts", "too many requests without a valid token: wait a minute", headers)
    if credentials is None:
        text = "this needs a token: send the header 'Authorization: Bearer cordon_...'"
        raise ApiError(401, "token_missing", text, _CHALLENGE)
    raise ApiError(401, "token_invalid", "this token is not known here, or was revoked", _CHALLENGE)


CallerDep = Annotated[str, Depends(caller)]
