"""Posts to webhooks and chats. Signed as the Standard Webhooks specification says, so that its libraries verify it."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Callable
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

import httpx

from controller.domain.notifications.addresses import AddressError, check_url, is_this_machine
from controller.domain.notifications.model import Delivery, HttpTarget, Sink
from controller.domain.notifications.retry import DELIVERED, Fault, Outcome
from controller.domain.notifications.templates import body_of
from controller.ports.errors import SettingsError

SECONDS: Final = 15.0  # of a whole attempt, from the look-up of the name to the status
_PREFIX: Final = "whsec_"  # of a secret in base64
# Statuses by which a receiver refuses this message; any other failure concerns the receiver.
_REFUSED: Final = frozenset({400, 413, 414, 415, 422, 431})
_MAX_PAUSE_DIGITS: Final = 6
_AGENT: Final = "Cordon"


class HttpSender:
    """Posts messages; `now` returns Unix seconds. One connection for each, which is closed after the status."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def send(self, sink: Sink, delivery: Delivery, missed: int, url: str, secret: str) -> Outcome:
        """Posts to `url`; signs with `secret` where there is one.

        Raises:
            SettingsError: the URL or the secret cannot be used.
        """
        try:
            check_url(url)
        except AddressError as e:
            raise SettingsError(f"the URL of {sink.name}: {e}") from e
        body = body_of(sink.kind, delivery, missed)
        headers = self._headers(delivery, body, secret)
        try:
            async with asyncio.timeout(SECONDS):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Outcome(Fault.SINK, f"no answer within {SECONDS:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as e:
            return Outcome(Fault.SINK, _words(e))

    def _headers(self, delivery: Delivery, body: bytes, secret: str) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": delivery.key,
            "User-Agent": _AGENT,
            "Accept-Encoding": "identity",
        }
        if secret:
            at = str(int(self._now()))
            headers |= {
                "Webhook-Id": delivery.key,
                "Webhook-Timestamp": at,
                "Webhook-Signature": f"v1,{signature_of(secret, delivery.key, at, body)}",
            }
        return headers

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        is_local = is_this_machine(urlsplit(url).hostname or "")
        # A proxy of the environment is for what leaves this machine.
        async with (
            httpx.AsyncClient(
                verify=self._context, timeout=SECONDS, follow_redirects=False, trust_env=not is_local
            ) as client,
            client.stream("POST", url, headers=headers, content=body) as response,
        ):
            return _outcome(response.status_code, response.headers.get("Retry-After", ""))


def signature_of(secret: str, key: str, timestamp: str, body: bytes) -> str:
    """Returns the HMAC-SHA256 in base64 over `key.timestamp.body`.

    Raises:
        SettingsError: the secret begins with `whsec_` and is not base64 then.
    """
    content = f"{key}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(_secret_bytes(secret), content, hashlib.sha256).digest()).decode()


def _secret_bytes(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise SettingsError(f"a webhook's secret that begins with {_PREFIX} goes on in base64") from None


def _outcome(status: int, retry_after: str) -> Outcome:
    if 200 <= status < 300:
        return DELIVERED
    if 300 <= status < 400:
        return Outcome(Fault.SINK, f"status {status}: redirects are not followed")
    if status in _REFUSED:
        return Outcome(Fault.MESSAGE, f"status {status}: the message was refused")
    is_pause = retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= _MAX_PAUSE_DIGITS
    return Outcome(Fault.SINK, f"status {status}", float(retry_after) if is_pause else 0.0)


def _words(error: Exception) -> str:
    """What went wrong, without the address, which may be a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def target_of(sink: Sink) -> HttpTarget:
    """The address of an HTTP sink."""
    assert sink.http is not None  # of its kind
    return sink.http
