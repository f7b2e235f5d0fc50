"""Downloads metadata and targets over HTTP(S): bounded in length and time, and resumed after an interruption."""

import logging
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import urllib3
import urllib3.connection
from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from device_agent.errors import StoppedError
from device_agent.updates.errors import UpdateError, from_tuf_error
from schemas.http_deadline import HeaderLimitedAnswer, connect_to_any, resolve
from schemas.updates import UpdateRefusalCode

CHUNK: Final = 64 * 1024  # bytes
SOCKET_SECONDS: Final = 20.0  # to connect, and without a byte
GRACE_SECONDS: Final = 10.0  # before the rate of a download is checked
MAX_FAILURES: Final = 6  # in a row without a byte
_RETRY_SECONDS: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
MIN_BUSY_SECONDS: Final = 1.0
MAX_BUSY_SECONDS: Final = 300.0
_BUSY_SECONDS: Final = 30.0  # a busy server that says no number of seconds
_BUSY_SPREAD: Final = 0.5  # a share of the wait: devices that were sent away together come back apart
_MAX_REDIRECTS: Final = 0
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_log = logging.getLogger(__name__)


class BusyError(exceptions.DownloadHTTPError):
    """The server asks to come again in so many seconds: no failed attempt."""

    def __init__(self, text: str, status: int, seconds: float) -> None:
        super().__init__(text, status)
        self.seconds = seconds


class TransferRateCheck:
    """Detects a server that is too slow, or keeps a device waiting on purpose."""

    def __init__(self, min_bytes_per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._min_rate = min_bytes_per_second
        self._now = now
        self._started = now()
        self._received = 0

    def received(self, count: int) -> None:
        """Adds received bytes (SlowRetrievalError: too few for the time that has passed)."""
        self._received += count
        passed = self._now() - self._started
        if passed > GRACE_SECONDS and self._received < self._min_rate * passed:
            raise exceptions.SlowRetrievalError(
                f"{self._received} bytes in {passed:.0f} s, fewer than {self._min_rate:.0f} bytes a second"
            )


class _Http(urllib3.connection.HTTPConnection):
    response_class = HeaderLimitedAnswer

    def _new_conn(self) -> socket.socket:
        """Connects: the timeout is for all addresses of the name together."""
        try:
            return connect_to_any(resolve(self._dns_host, self.port), self.port, SOCKET_SECONDS)
        except socket.gaierror as e:
            raise urllib3.exceptions.NameResolutionError(self.host, self, e) from e
        except TimeoutError as e:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"no connection within {SOCKET_SECONDS:g} s") from e
        except OSError as e:
            raise urllib3.exceptions.NewConnectionError(self, f"cannot connect: {e}") from e


class _Https(urllib3.connection.HTTPSConnection, _Http):
    response_class = HeaderLimitedAnswer


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class MetadataFetcher(FetcherInterface):
    """The HTTP client of python-tuf and of target downloads."""

    def __init__(
        self,
        tls: ssl.SSLContext | None,
        min_bytes_per_second: float,
        seconds_left: Callable[[], float],
        stopping: threading.Event,
    ) -> None:
        """`seconds_left` returns the time until the order's deadline."""
        self._pool = urllib3.PoolManager(
            ssl_context=tls, retries=False, timeout=urllib3.Timeout(connect=SOCKET_SECONDS, read=SOCKET_SECONDS)
        )
        self._pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._min_rate = min_bytes_per_second
        self._seconds_left = seconds_left
        self._stopping = stopping
        self._under_way: urllib3.BaseHTTPResponse | None = None

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Downloads a file of metadata; after an interruption from the start again."""
        failures = 0
        while True:
            try:
                return super().download_bytes(url, max_length)
            except exceptions.DownloadError as e:
                failures += not isinstance(e, BusyError)
                if _is_final(e) or failures >= MAX_FAILURES:
                    raise
                self.wait_to_retry(e, failures)
            finally:
                # The base class leaves the connection open when there is more than `max_length`.
                if self._under_way is not None:
                    self._under_way.close()
                    self._under_way = None

    def wait_to_retry(self, error: Exception, failures: int) -> None:
        """Waits after so many failures in a row, or as long as a busy server asked for.

        Raises:
            StoppedError: the agent stops.
            UpdateError: the deadline passed.
        """
        left = self._seconds_left()
        if isinstance(error, BusyError):
            wait = min(max(error.seconds, MIN_BUSY_SECONDS), MAX_BUSY_SECONDS)
            wait *= random.uniform(1.0, 1.0 + _BUSY_SPREAD)  # noqa: S311 - no secret
        else:
            wait = _RETRY_SECONDS[min(max(failures, 1), len(_RETRY_SECONDS)) - 1]
        _log.info("%s; again in %.1f s", error, wait)
        if self._stopping.wait(max(0.0, min(wait, left))):
            raise StoppedError from error
        if wait >= left:
            raise UpdateError(UpdateRefusalCode.DEADLINE, f"the deadline passed during the download: {error}")

    def _fetch(self, url: str) -> Iterator[bytes]:
        response = self.open(url, {})
        if response.status != 200:
            response.close()
            raise http_error(response, url.rsplit("/", 1)[-1])
        self._under_way = response
        return self.iter_body(response)

    def open(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Sends a request (DownloadError: no answer)."""
        try:
            # No content encoding: the hash covers the sent bytes, and no decompression exceeds the requested length.
            return self._pool.request(
                "GET", url, headers={"Accept-Encoding": "identity", **headers}, preload_content=False, redirect=False
            )
        except urllib3.exceptions.NewConnectionError as e:  # a subclass of TimeoutError in urllib3
            raise exceptions.DownloadError(f"the server cannot be reached: {e}") from e
        except urllib3.exceptions.TimeoutError as e:
            raise exceptions.SlowRetrievalError(f"no answer within {SOCKET_SECONDS:g} s") from e
        except urllib3.exceptions.HTTPError as e:
            raise exceptions.DownloadError(f"the server cannot be reached: {e}") from e

    def iter_body(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """Yields the body as it arrives."""
        rate = TransferRateCheck(self._min_rate)
        try:
            # One read returns what has arrived, so that a server that sends byte by byte is detected.
            while chunk := response.read1(CHUNK, decode_content=False):
                if self._stopping.is_set():
                    raise StoppedError
                rate.received(len(chunk))
                yield chunk
        except urllib3.exceptions.TimeoutError as e:
            raise exceptions.SlowRetrievalError(f"no byte within {SOCKET_SECONDS:g} s") from e
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise exceptions.DownloadError(f"the connection was interrupted: {e}") from e
        finally:
            response.close()


class TargetDownload:
    """One target: downloaded to `PATH.part`, and renamed to `path` once length and hash match."""

    def __init__(
        self, fetcher: MetadataFetcher, url: str, info: TargetFile, path: Path, stopping: threading.Event
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._info = info
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._has_resumed = self._size() > 0
        self._is_whole = False  # requested from the start, because the server sends no usable ranges
        self._stopping = stopping

    def run(self, on_bytes: Callable[[int], None], crash_point: Callable[[str], None]) -> None:
        """Downloads what is missing; `on_bytes` gets the number of bytes so far.

        Raises:
            UpdateError: the download failed, or does not match the signed metadata.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.exists() and self._matches_digest(self._path):
            return
        self._download(on_bytes, crash_point)
        if not self._matches_digest(self._part) and self._has_resumed:
            # Only the part before may be damaged: once more, and in one piece.
            _log.warning("the partial download of %s is damaged: downloaded again", self._info.path)
            self._part.unlink()
            self._is_whole = True
            self._download(on_bytes, crash_point)
        if not self._matches_digest(self._part):
            self._part.unlink()
            raise UpdateError(UpdateRefusalCode.WRONG_HASH, f"{self._info.path}: the content is not what was signed")
        crash_point("download:renamed")
        self._part.replace(self._path)

    def _download(self, on_bytes: Callable[[int], None], crash_point: Callable[[str], None]) -> None:
        failures, most = 0, self._size()
        while (offset := self._size()) < self._info.length:
            try:
                self._resume(offset, on_bytes, crash_point)
            except (exceptions.DownloadError, exceptions.RepositoryError) as e:
                # More bytes than ever before are progress, also where each attempt begins at the start.
                if self._size() > most:
                    failures, most = 0, self._size()
                failures += not isinstance(e, BusyError)
                if _is_final(e) or failures >= MAX_FAILURES:
                    raise _from_download_error(e) from e
                self._fetcher.wait_to_retry(e, failures)
        if offset > self._info.length:
            self._part.unlink()
            text = f"{self._info.path}: more than the {self._info.length} bytes that were signed"
            raise UpdateError(UpdateRefusalCode.ENDLESS_DATA, text)

    def _resume(self, offset: int, on_bytes: Callable[[int], None], crash_point: Callable[[str], None]) -> None:
        # No If-Range: other servers than Cordon's have tags of their own, and the hash of the whole is checked anyway.
        headers = {"Range": f"bytes={offset}-"} if offset and not self._is_whole else {}
        response = self._fetcher.open(self._url, headers)
        start = self._start_of(response, offset)
        received = start
        self._has_resumed = self._has_resumed or start > 0
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for chunk in self._fetcher.iter_body(response):
                received += len(chunk)
                if received > self._info.length:
                    # The disk never gets more than was signed.
                    raise exceptions.DownloadLengthMismatchError(
                        f"{self._info.path}: more than the {self._info.length} bytes that were signed"
                    )
                file.write(chunk)
                crash_point("download:chunk")
                on_bytes(received)
            file.flush()
            os.fsync(file.fileno())
        is_all = response.status == 200 and response.headers.get("Content-Length") == str(received)
        if received < self._info.length and is_all:
            raise UpdateError(
                UpdateRefusalCode.WRONG_LENGTH, f"{self._info.path}: {received} bytes, {self._info.length} were signed"
            )
        if received < self._info.length:
            raise exceptions.DownloadError(f"{received} of {self._info.length} bytes arrived")

    def _start_of(self, response: urllib3.BaseHTTPResponse, offset: int) -> int:
        """Returns where the body begins: a range may begin before the requested byte, at a block of a cache.

        Raises:
            DownloadError: the body cannot be used; the next attempt begins at the start.
        """
        is_range_requested = offset > 0 and not self._is_whole
        status, length = response.status, response.headers.get("Content-Length")
        # Some servers and proxies answer a range with 200: with another length than the whole it is no whole.
        is_whole = length in {None, str(self._info.length)}
        if status == 200 and (is_whole or not is_range_requested):
            return 0
        if status in {200, 206}:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is not None and int(found[1]) <= offset and found[2] in {"*", str(self._info.length)}:
                return int(found[1])
        response.close()
        error = http_error(response, self._info.path)
        if status in {200, 206, 416} or (is_range_requested and _is_final(error)):
            self._is_whole = True
            text = f"{self._info.path}: the server did not send the requested range: again from the start"
            raise exceptions.DownloadError(text)
        raise error

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _matches_digest(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                self._info.verify_length_and_hashes(file)
        except exceptions.LengthOrHashMismatchError:
            return False
        return True


def http_error(response: urllib3.BaseHTTPResponse, name: str) -> exceptions.DownloadHTTPError:
    """Returns the error for a response without content; `name` is the requested file."""
    status, text = response.status, f"{name}: the server answered {response.status}"
    after = response.headers.get("Retry-After")
    if status == 429 or (status == 503 and after is not None):
        return BusyError(text, status, float(after) if after and _SECONDS.fullmatch(after) else _BUSY_SECONDS)
    return exceptions.DownloadHTTPError(text, status)


def _is_final(error: Exception) -> bool:
    if isinstance(error, exceptions.DownloadHTTPError):
        return error.status_code in {400, 401, 403, 404, 410}
    return isinstance(error, exceptions.DownloadLengthMismatchError)


def _from_download_error(error: Exception) -> UpdateError:
    failure = from_tuf_error(error)
    if failure.code is UpdateRefusalCode.MISSING_METADATA:
        return UpdateError(UpdateRefusalCode.NOT_FOUND, str(failure))
    return failure
