"""HTTP requests of the collectors: bounded in time and size, no redirects.

`fetch` is for configured URLs. `fetch_public` is for URLs that a certificate names: only public addresses are asked, so
that nobody has the agent send requests to services of the device or its network.
"""

import http.client
import ipaddress
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from schemas.http_deadline import HttpConnection, HttpsConnection

SECONDS: Final = 10.0  # for each step; a whole answer has `ANSWER_TIMEOUTS` times as long
_SCHEMES: Final = frozenset({"http", "https"})
_PIECE: Final = 64 * 1024  # bytes of one read
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """The request failed for the reason in the text."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as an error: its target is not a configured URL."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(HttpsConnection, req)


def fetch(url: str, *, max_bytes: int) -> bytes:
    """Returns the response body of a GET.

    Raises:
        FetchError: the scheme is not HTTP(S), there is no answer, an error status, or more than `max_bytes`.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise FetchError("not an HTTP or HTTPS URL")
    try:
        with urllib.request.build_opener(_NoRedirect, _Http, _Https).open(url, timeout=SECONDS) as answer:
            return _read(answer.read1, max_bytes)
    except urllib.error.HTTPError as e:
        e.close()
        raise FetchError(f"the server answered {e.code}") from e
    except (OSError, HTTPException, ValueError) as e:
        raise _no_answer(e) from e


def fetch_public(
    url: str, *, max_bytes: int, body: bytes, headers: Mapping[str, str], networks: Sequence[IpNetwork] = ()
) -> bytes:
    """Returns the response body of a POST to a public address, or to one in `networks`.

    The name is resolved once, and the connection goes to the address that was checked. No proxy is used.

    Raises:
        FetchError: as `fetch`, or the address is not public.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise FetchError("not a URL") from e
    if parts.scheme not in _SCHEMES or not host or parts.username is not None:
        raise FetchError("not an HTTP or HTTPS URL")
    connection = _CheckedConnection(host, port or (443 if parts.scheme == "https" else 80), parts.scheme, networks)
    try:
        connection.request(
            "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, dict(headers)
        )
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise FetchError(f"the server answered {answer.status}")
        return _read(answer.read1, max_bytes)
    except (OSError, HTTPException, ValueError) as e:
        raise _no_answer(e) from e
    finally:
        connection.close()


class _CheckedConnection(HttpConnection):
    """Connects to the first address of the name, if all of them may be asked."""

    def __init__(self, host: str, port: int, scheme: str, networks: Sequence[IpNetwork]) -> None:
        super().__init__(host, port, timeout=SECONDS)
        self._scheme = scheme
        self._networks = networks

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            if not may_be_asked(address, self._networks):
                raise FetchError(f"{self.host} is {address}, which is not public")
        self.sock = socket.create_connection((addresses[0], self.port), timeout=SECONDS)
        if self._scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def may_be_asked(text: str, networks: Sequence[IpNetwork]) -> bool:
    """Whether an address is public or in one of the networks; also the IPv4 address that it contains has to be."""
    address: IpAddress = ipaddress.ip_address(text.partition("%")[0])
    if any(address in network for network in networks):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inside is not None:
            return may_be_asked(str(inside), networks)
    return address.is_global and not address.is_multicast


def _read(read_piece: Callable[[int], bytes], max_bytes: int) -> bytes:
    data = bytearray()
    while piece := read_piece(_PIECE):
        data += piece
        if len(data) > max_bytes:
            raise FetchError(f"more than {max_bytes} bytes")
    return bytes(data)


def _no_answer(error: Exception) -> FetchError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FetchError(f"no answer: {reason}")
