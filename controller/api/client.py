"""A client of Cordon's API, for the CLI and the demonstrations: bounded responses, verified certificates.

Uses `http.client`: `import httpx` takes 80 ms, which every `cordon` command would pay.
"""

import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from controller.ports.errors import ControllerError, SettingsError

BASE: Final = "/api/v1"
TIMEOUT: Final = 30.0  # seconds without a byte
MAX_RESPONSE: Final = 64 * 1024 * 1024  # bytes
MAX_LINE: Final = 1024 * 1024  # bytes of one line of a streamed response
PAGE: Final = 500  # rows per request


class ApiUnreachableError(ControllerError):
    """The API did not respond, or its certificate is not trusted."""


class ApiResponseError(ControllerError):
    """The API responded with an error, or the response is not Cordon's (`status` of the response, `code` empty)."""

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """Address and credentials of an API. `unsafe_http`: permits a token in clear text to another machine."""

    url: str
    token: str | None
    ca: Path | None = None
    unsafe_http: bool = False


_CLOSED: Final = (http.client.RemoteDisconnected, ConnectionResetError, ssl.SSLEOFError)
_REPEAT_AFTER: Final = (0.3, 1.0)  # seconds


class ApiClient:
    """Calls the API at `endpoint`, each request over a connection of its own.

    Raises:
        SettingsError: the URL is invalid, or would send the token in clear text.
    """

    def __init__(self, endpoint: ApiEndpoint) -> None:
        try:
            parts = urlsplit(endpoint.url)
            self._port = parts.port
        except ValueError as e:
            raise SettingsError(f"{endpoint.url}: {e}") from e
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise SettingsError(f"{endpoint.url}: the API's address is http(s)://host:port")
        if parts.scheme == "http" and not endpoint.unsafe_http and not _is_loopback(parts.hostname):
            text = f"{endpoint.url}: this would send the token in clear text; use https, or --unsafe-http if you must"
            raise SettingsError(text)
        self.endpoint = endpoint
        self._host, self._tls = parts.hostname, parts.scheme == "https"

    def get(self, path: str, **query: object) -> Any:
        """Returns the JSON of a `GET`; parameters that are `None` are omitted."""
        return self.call("GET", path, None, **query)

    def pages(self, path: str, limit: int | None = None, **query: object) -> Iterator[Any]:
        """Yields the items of a listing, by pages, at most `limit`; rows that come or go meanwhile hide no other."""
        after, count = None, 0
        while limit is None or count < limit:
            size = PAGE if limit is None else min(PAGE, limit - count)
            page = self.get(path, limit=size, after=after, **query)
            yield from page["items"]
            after, count = page["next"], count + len(page["items"])
            if after is None:
                return

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: object) -> Any:
        """Returns the JSON of the response, `None` where it has no body; `path` is below `/api/v1`.

        The query's `wait`, in seconds, is added to the timeout. Parameters that are `None` are omitted.

        Raises:
            ApiUnreachableError: no response.
            ApiResponseError: an error response, or one that is not Cordon's.
            SettingsError: the CA or the token cannot be used.
        """
        given = [
            (name, _text(one))
            for name, value in query.items()
            if value is not None
            for one in (value if isinstance(value, list) else [value])
        ]
        wait = query.get("wait")
        timeout = TIMEOUT + (wait if isinstance(wait, int | float) else 0.0)
        target = BASE + path + (f"?{urlencode(given)}" if given else "")
        status, value = self.exchange(method, target, body, timeout=timeout)
        if 200 <= status < 300:
            return value
        raise _error(status, value)

    def exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = TIMEOUT
    ) -> tuple[int, Any]:
        """Returns status and JSON of a response, whatever the status; `path` is the whole path. Raises as `call`.

        A server closes connections without an answer where one address opens too many in a second: a `GET` is repeated.
        """
        for seconds in _REPEAT_AFTER if method == "GET" else ():
            try:
                return self._exchange_once(method, path, body, timeout)
            except ApiUnreachableError as e:
                if not isinstance(e.__cause__, _CLOSED):
                    raise
                time.sleep(seconds)
        return self._exchange_once(method, path, body, timeout)

    def _exchange_once(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> tuple[int, Any]:
        connection = self._connection(timeout)
        try:
            self._send(connection, method, path, body)
            with connection.getresponse() as response:
                content = response.read(MAX_RESPONSE + 1)
                if response.length and len(content) <= MAX_RESPONSE:
                    raise http.client.IncompleteRead(content, response.length)
        except TimeoutError as e:
            text = f"{self.endpoint.url} did not answer within {timeout:.0f} s; what was asked may still happen"
            raise ApiUnreachableError(text) from e
        except (OSError, http.client.HTTPException) as e:
            raise self._unreachable(e) from e
        finally:
            connection.close()
        if len(content) > MAX_RESPONSE:
            text = f"{self.endpoint.url}: the response is larger than {MAX_RESPONSE} bytes"
            raise ApiResponseError(text, response.status)
        return response.status, None if response.status == 204 else _json(response.status, content)

    def lines(self, method: str, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """Yields the lines of a streamed response as they come, each of them JSON. Raises as `call`."""
        connection = self._connection(TIMEOUT)
        try:
            self._send(connection, method, BASE + path, body)
            with connection.getresponse() as response:
                if response.status != 200:
                    raise _error(response.status, _json(response.status, response.read(MAX_RESPONSE)))
                while line := response.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        text = f"{self.endpoint.url}: a line of the response is larger than {MAX_LINE} bytes"
                        raise ApiResponseError(text, response.status)
                    yield json.loads(line)
        except (OSError, http.client.HTTPException) as e:
            raise self._unreachable(e) from e
        except ValueError as e:
            text = f"{self.endpoint.url}: the response is incomplete or not Cordon's"
            raise ApiResponseError(text, 200) from e
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=None if self.endpoint.ca is None else str(self.endpoint.ca))
        except (OSError, ssl.SSLError) as e:
            raise SettingsError(f"{self.endpoint.ca}: cannot be used as CA: {e}") from e
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Mapping[str, Any] | None
    ) -> None:
        headers = {"Accept": "application/json"}
        if self.endpoint.token is not None:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        except OSError:  # SSLCertVerificationError is a ValueError, too
            raise
        except ValueError as e:  # for example a token with line breaks
            raise SettingsError(f"cannot ask {self.endpoint.url}: {e}") from e

    def _unreachable(self, error: Exception) -> ApiUnreachableError:
        return ApiUnreachableError(f"cannot reach {self.endpoint.url}: {_cause(error)}")


def segment(text: str) -> str:
    """Returns `text` quoted as one segment of a path."""
    return quote(text, safe="")


def _json(status: int, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as e:
        text = f"the response ({status}) is not Cordon's: is this the address of its API?"
        raise ApiResponseError(text, status) from e


def _error(status: int, value: Any) -> ApiResponseError:
    error = value.get("error") if isinstance(value, dict) else None
    fields = error if isinstance(error, dict) else {}
    message = fields.get("message") or f"the API answered {status}"
    return ApiResponseError(str(message), status, str(fields.get("code", "")))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
