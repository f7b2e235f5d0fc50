"""A small client of Cordon's API over the standard library: bounded, verified, and clear about what went wrong."""

import http.client
import ipaddress
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from controller.cli.errors import CliError, ExitCode

BASE: Final = "/api/v1"
TIMEOUT: Final = 30.0  # seconds without a byte
MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes
MAX_LINE: Final = 1024 * 1024  # bytes of an answer that comes line by line
PAGE: Final = 500  # rows asked for at a time
_CODES: Final = {401: ExitCode.NOT_ALLOWED, 403: ExitCode.NOT_ALLOWED, 422: ExitCode.USAGE, 429: ExitCode.NOT_ALLOWED}


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """Where the API is and how to get in. `unsafe_http`: send the token in clear beyond this machine."""

    url: str
    token: str | None
    ca: Path | None = None
    unsafe_http: bool = False


class ApiClient:
    """Calls the API; every failure is a `CliError` with its exit code."""

    def __init__(self, endpoint: ApiEndpoint) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise CliError(f"{endpoint.url}: the API's address is http(s)://host:port", ExitCode.USAGE)
        if parts.scheme == "http" and not endpoint.unsafe_http and not _is_here(parts.hostname):
            text = f"{endpoint.url}: this would send the token in clear text; use https, or --unsafe-http if you must"
            raise CliError(text, ExitCode.USAGE)
        self._endpoint = endpoint
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"

    def get(self, path: str, **query: object) -> Any:
        """The answer of `GET`; parameters that are `None` are left out."""
        given = {name: _text(value) for name, value in query.items() if value is not None}
        return self.call("GET", path + (f"?{urlencode(given)}" if given else ""))

    def pages(self, path: str, most: int | None = None, **query: object) -> Iterator[Any]:
        """All items of a listing with `total`, page by page, at most `most`."""
        offset = 0
        while most is None or offset < most:
            size = PAGE if most is None else min(PAGE, most - offset)
            page = self.get(path, limit=size, offset=offset, **query)
            yield from page["items"]
            offset += len(page["items"])
            if not page["items"] or offset >= page["total"]:
                return

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request; the answer's JSON, `None` where it has no body.

        Raises:
            CliError: nobody answered, or the answer is an error.
        """
        headers = self._headers()
        payload = None if body is None else json.dumps(body).encode()
        if payload is not None:
            headers["Content-Type"] = "application/json"
        status, answer = self._exchange(method, BASE + path, payload, headers)
        return _read(status, answer)

    def lines(self, method: str, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """The answer line by line as it comes, each of them JSON; nothing of it is kept here.

        Raises:
            CliError: nobody answered, the answer is an error, or it broke off.
        """
        connection = self._connection()
        try:
            headers = {**self._headers(), "Content-Type": "application/json"}
            connection.request(method, BASE + path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            if response.status != 200:
                _read(response.status, response.read(MAX_ANSWER))
            while line := response.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise CliError(f"{self._endpoint.url}: a line of the answer is larger than {MAX_LINE} bytes")
                yield json.loads(line)
        except (OSError, http.client.HTTPException) as e:
            raise CliError(f"cannot reach {self._endpoint.url}: {_why(e)}", ExitCode.UNREACHABLE) from e
        except ValueError as e:
            raise CliError(f"{self._endpoint.url}: the answer broke off or is not Cordon's") from e
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._endpoint.token is not None:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        return headers

    def _exchange(self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, payload, dict(headers))
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER + 1)
        except TimeoutError as e:
            text = f"{self._endpoint.url} did not answer within {TIMEOUT:.0f} s; what was asked may still happen"
            raise CliError(text, ExitCode.UNREACHABLE) from e
        except (OSError, http.client.HTTPException) as e:
            raise CliError(f"cannot reach {self._endpoint.url}: {_why(e)}", ExitCode.UNREACHABLE) from e
        except ValueError as e:  # a token with line breaks, for one
            raise CliError(f"cannot ask {self._endpoint.url}: {e}", ExitCode.USAGE) from e
        finally:
            connection.close()
        if len(answer) > MAX_ANSWER:
            raise CliError(f"{self._endpoint.url}: the answer is larger than {MAX_ANSWER} bytes")
        return response.status, answer

    def _connection(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            context = ssl.create_default_context(cafile=None if self._endpoint.ca is None else str(self._endpoint.ca))
        except (OSError, ssl.SSLError) as e:
            raise CliError(f"{self._endpoint.ca}: cannot be used as CA: {e}", ExitCode.USAGE) from e
        return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=context)


def segment(text: str) -> str:
    """A value as one segment of a path."""
    return quote(text, safe="")


def _read(status: int, answer: bytes) -> Any:
    if status == 204:
        return None
    try:
        value = json.loads(answer)
    except ValueError as e:
        raise CliError(f"the answer ({status}) is not Cordon's: is this the address of its API?") from e
    if 200 <= status < 300:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    reason = error.get("code") if isinstance(error, dict) else None
    message = str(text) if text else f"the API answered {status}"
    raise CliError(message, _CODES.get(status, ExitCode.FAILED), str(reason or ""))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
