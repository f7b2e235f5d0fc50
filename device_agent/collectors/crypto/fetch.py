"""HTTP requests of the collectors: bounded in time and size, no redirects.

`fetch` is for configured URLs. `fetch_public` is for URLs that a certificate names: only public addresses are asked, so
that nobody has the agent send requests to services of the device or its network. `may_be_asked` decides which are.
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

SECONDS: Final = 10.0  # for each step; all of them together have `ANSWER_TIMEOUTS` times as long
_DISCARD: Final = 9  # a port
_SCHEMES: Final = frozenset({"http", "https"})
_PIECE: Final = 64 * 1024  # bytes of one read
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that was ever assigned for public use
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_ISATAP: Final = 0x5EFE  # RFC 5214: with an IPv4 address after it, the interface identifier; bit 0x0200_0000 may be set
# Special purposes, by IANA's registries: what `is_global` of the running Python does not know, or counts as public.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23",  # Teredo, benchmarking, AMT, ORCHID and ORCHIDv2
        "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20",
    )
)  # fmt: skip


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
    """Connects to an address of the name, if all of them may be asked."""

    def __init__(self, host: str, port: int, scheme: str, networks: Sequence[IpNetwork]) -> None:
        super().__init__(host, port, timeout=SECONDS)
        self._scheme = scheme
        self._networks = networks

    def connect(self) -> None:
        super().connect()
        if self._scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def addresses(self, host: str, port: int) -> list[str]:
        found = super().addresses(host, port)
        for address in found:
            if not may_be_asked(address, self._networks):
                raise FetchError(f"{self.host} is {address}, which is not public")
        return found


def may_be_asked(text: str, networks: Sequence[IpNetwork]) -> bool:
    """Whether an address is public and another machine's, or in one of the networks.

    An address that contains an IPv4 address is judged by that one. What a router forwards to an inner address, such as
    a NAT64 prefix of the network's own, looks public and cannot be told.
    """
    address: IpAddress = ipaddress.ip_address(text.partition("%")[0])
    if any(address in network for network in networks):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        low = int(address) & 0xFFFF_FFFF
        if address in _NAT64 or address.ipv4_mapped is not None:
            return may_be_asked(str(ipaddress.IPv4Address(low)), networks)
        if address not in _GLOBAL_UNICAST:
            return False
        if (int(address) >> 32) & 0xFDFF_FFFF == _ISATAP and not may_be_asked(str(ipaddress.IPv4Address(low)), ()):
            return False
    return address.is_global and not any(address in each for each in _SPECIAL) and not is_own(address)


def is_own(address: IpAddress) -> bool:
    """Whether the kernel delivers packets for the address on this machine: then it also sends them from it."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(address), _DISCARD))  # sends nothing
            return ipaddress.ip_address(sock.getsockname()[0]) == address
    except OSError:
        return False  # no route: nothing is sent to it either


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
