"""One request to the provider: no redirect, no proxy of the environment, bounded in time and size."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx

from controller.domain.client_address import parse_address
from controller.ports.identity_provider import ProviderBusyError, ProviderUnavailableError

MAX_URL: Final = 2048  # characters
MAX_ANSWER: Final = 256 * 1024  # bytes; tokens of people with a thousand groups have half of it
SECONDS: Final = 10.0  # for the whole exchange
AT_ONCE: Final = 8  # exchanges under way; the next are refused


def endpoint_problem(url: str, issuer: str) -> str:
    """Why an address of the provider is not used, "" for a good one.

    Codes, secrets and keys travel encrypted; plain HTTP is for a provider on this machine alone.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        return "is no address"
    if len(url) > MAX_URL or not url.isprintable() or not url.isascii() or " " in url:
        return "is no address"
    if not parts.hostname or "@" in parts.netloc or parts.fragment:
        return "has no host, a user name or a fragment"
    if parts.scheme == "https":
        return ""
    if parts.scheme == "http" and issuer.startswith("http:") and _is_loopback(parts.hostname):
        return ""
    return "does not begin with https://"


def _is_loopback(host: str) -> bool:
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


class ProviderExchange:
    """Sends requests, each over a connection of its own: sign-ins are rare, and none keeps a place of a pool."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._under_way = 0

    async def fetch(self, url: str) -> dict[str, Any]:
        """Returns the JSON object at an address.

        Raises:
            ProviderUnavailableError: there is none, or not in time.
            ProviderBusyError: too many are under way.
        """
        status, found = await self._bounded(httpx.Request("GET", url, headers=_HEADERS), url)
        if status != HTTPStatus.OK:
            raise ProviderUnavailableError(f"{url}: answered {status}")
        return found

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Sends a form; returns the status and the JSON object of the answer.

        Raises:
            ProviderUnavailableError: there is no such answer, or not in time.
            ProviderBusyError: too many are under way.
        """
        kind = {"content-type": "application/x-www-form-urlencoded"}
        request = httpx.Request("POST", url, headers={**_HEADERS, **kind, **headers}, content=urlencode(form))
        return await self._bounded(request, url)

    async def _bounded(self, request: httpx.Request, url: str) -> tuple[int, dict[str, Any]]:
        if self._under_way >= AT_ONCE:
            raise ProviderBusyError("too many sign-ins are under way: try again")
        self._under_way += 1
        try:
            async with asyncio.timeout(SECONDS):
                status, raw = await self._exchange(request, url)
        except (TimeoutError, httpx.TimeoutException) as e:
            raise ProviderUnavailableError(f"{url}: no whole answer in {SECONDS:g} s") from e
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as e:
            raise ProviderUnavailableError(f"{url}: cannot be reached ({type(e).__name__})") from e
        finally:
            self._under_way -= 1
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as e:
            raise ProviderUnavailableError(f"{url}: answered {status} without JSON") from e
        if not isinstance(found, dict):
            raise ProviderUnavailableError(f"{url}: answered {status} without a JSON object")
        return status, found

    async def _exchange(self, request: httpx.Request, url: str) -> tuple[int, bytes]:
        timeout = httpx.Timeout(SECONDS).as_dict()
        async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            request.extensions = {"timeout": timeout}
            response = await transport.handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderUnavailableError(f"{url}: an encoded answer that was not asked for")
            assert isinstance(response.stream, httpx.AsyncByteStream)
            raw = bytearray()
            async for piece in response.stream:
                raw += piece
                if len(raw) > MAX_ANSWER:
                    raise ProviderUnavailableError(f"{url}: more than {MAX_ANSWER} bytes")
            await response.aclose()
            return response.status_code, bytes(raw)


_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "cordon"}
