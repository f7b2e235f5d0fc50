"""Fetches metadata and targets over HTTP(S): bounded in length and in time, and going on where it broke off."""

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import urllib3
from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from device_agent.errors import StoppedError
from device_agent.updates.errors import UpdateError, of_metadata
from schemas.updates import UpdateRefusalCode

CHUNK: Final = 64 * 1024  # bytes
SOCKET_SECONDS: Final = 20.0  # without a byte
GRACE_SECONDS: Final = 10.0  # before the rate of a download counts
TRIES: Final = 6  # in a row without a byte
_PAUSES: Final = (0.2, 1.0, 2.0, 5.0, 10.0)  # seconds before it is tried again
_MAX_REDIRECTS: Final = 0
_log = logging.getLogger(__name__)


class TransferRateCheck:
    """Tells a server that is too slow, or means to hold a device for ever, from one that delivers."""

    def __init__(self, min_bytes_per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._least = min_bytes_per_second
        self._now = now
        self._started = now()
        self._got = 0

    def got(self, count: int) -> None:
        """Count bytes (SlowRetrievalError: too few for the time that has passed)."""
        self._got += count
        passed = self._now() - self._started
        if passed > GRACE_SECONDS and self._got < self._least * passed:
            raise exceptions.SlowRetrievalError(
                f"{self._got} bytes in {passed:.0f} s, fewer than {self._least:.0f} bytes a second"
            )


class MetadataFetcher(FetcherInterface):
    """What python-tuf fetches metadata with."""

    def __init__(self, tls: ssl.SSLContext | None, min_bytes_per_second: float, stopping: threading.Event) -> None:
        self._pool = urllib3.PoolManager(
            ssl_context=tls, retries=False, timeout=urllib3.Timeout(connect=SOCKET_SECONDS, read=SOCKET_SECONDS)
        )
        self._least = min_bytes_per_second
        self._stopping = stopping

    def _fetch(self, url: str) -> Iterator[bytes]:
        response = self.open(url, {})
        if response.status != 200:
            status = response.status
            response.close()
            raise exceptions.DownloadHTTPError(f"{url.rsplit('/', 1)[-1]}: the server answered {status}", status)
        return self.chunks(response)

    def open(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Begin one request (DownloadError: nobody answered)."""
        try:
            # No encoding: what is hashed is what is sent, and nothing unpacks itself into more than was asked for.
            return self._pool.request(
                "GET", url, headers={"Accept-Encoding": "identity", **headers}, preload_content=False, redirect=False
            )
        except urllib3.exceptions.NewConnectionError as e:  # a kind of time-out to urllib3
            raise exceptions.DownloadError(f"the server cannot be reached: {e}") from e
        except urllib3.exceptions.TimeoutError as e:
            raise exceptions.SlowRetrievalError(f"no answer within {SOCKET_SECONDS:g} s") from e
        except urllib3.exceptions.HTTPError as e:
            raise exceptions.DownloadError(f"the server cannot be reached: {e}") from e

    def chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body, as it comes."""
        pace = TransferRateCheck(self._least)
        try:
            # One read returns what is there: a server that sends byte by byte is seen to do so.
            while chunk := response.read1(CHUNK, decode_content=False):
                if self._stopping.is_set():
                    raise StoppedError
                pace.got(len(chunk))
                yield chunk
        except urllib3.exceptions.TimeoutError as e:
            raise exceptions.SlowRetrievalError(f"no byte within {SOCKET_SECONDS:g} s") from e
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise exceptions.DownloadError(f"the connection broke off: {e}") from e
        finally:
            response.close()


class TargetDownload:
    """One target, fetched into `PATH.part` and renamed to `path` once its length and hash are right."""

    def __init__(
        self, fetcher: MetadataFetcher, url: str, info: TargetFile, path: Path, stopping: threading.Event
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._info = info
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._stopping = stopping

    def run(self, told: Callable[[int], None], step: Callable[[str], None]) -> None:
        """Fetch what is missing; `told` hears how many bytes there are.

        Raises:
            UpdateError: it cannot be had, or is not what was signed.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.exists() and self._is_right(self._path):
            return
        has_resumed = self._part.exists() and self._part.stat().st_size > 0
        self._fetch_all(told, step)
        if not self._is_right(self._part) and has_resumed:
            # The part of before may be damaged, and all else be well: once more, from the start.
            _log.warning("what was kept of %s is damaged: fetched again", self._info.path)
            self._part.unlink()
            self._fetch_all(told, step)
        if not self._is_right(self._part):
            self._part.unlink()
            raise UpdateError(UpdateRefusalCode.WRONG_HASH, f"{self._info.path}: the content is not what was signed")
        step("download:renamed")
        self._part.replace(self._path)

    def _fetch_all(self, told: Callable[[int], None], step: Callable[[str], None]) -> None:
        failures = 0
        while (have := self._size()) < self._info.length:
            try:
                self._fetch_rest(have, told, step)
            except (exceptions.DownloadError, exceptions.RepositoryError) as e:
                failures = 1 if self._size() > have else failures + 1
                if isinstance(e, exceptions.DownloadLengthMismatchError) or failures >= TRIES or _is_final(e):
                    raise _of_target(e) from e
                _log.info("%s: %s; tried again", self._info.path, e)
                if self._stopping.wait(_PAUSES[min(failures, len(_PAUSES)) - 1]):
                    raise StoppedError from e
        if have > self._info.length:
            self._part.unlink()
            text = f"{self._info.path}: more than the {self._info.length} bytes that were signed"
            raise UpdateError(UpdateRefusalCode.ENDLESS_DATA, text)

    def _fetch_rest(self, have: int, told: Callable[[int], None], step: Callable[[str], None]) -> None:
        tag = f'"{self._info.hashes["sha256"]}"'
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if have else {}
        response = self._fetcher.open(self._url, headers)
        if response.status not in {200, 206}:
            response.close()
            raise exceptions.DownloadHTTPError(
                f"{self._info.path}: the server answered {response.status}", response.status
            )
        # 200: the server does not know ranges, or has another content by now.
        start = have if response.status == 206 else 0
        got = start
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for chunk in self._fetcher.chunks(response):
                got += len(chunk)
                if got > self._info.length:
                    # Never more on the disk than was signed, however much is sent.
                    raise exceptions.DownloadLengthMismatchError(
                        f"{self._info.path}: more than the {self._info.length} bytes that were signed"
                    )
                file.write(chunk)
                step("download:chunk")
                told(got)
            file.flush()
            os.fsync(file.fileno())
        if got < self._info.length and response.headers.get("Content-Length") == str(got - start):
            raise UpdateError(
                UpdateRefusalCode.WRONG_LENGTH, f"{self._info.path}: {got} bytes, {self._info.length} were signed"
            )
        if got < self._info.length:
            raise exceptions.DownloadError(f"{got} of {self._info.length} bytes came")

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _is_right(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                self._info.verify_length_and_hashes(file)
        except exceptions.LengthOrHashMismatchError:
            return False
        return True


def _is_final(error: Exception) -> bool:
    return isinstance(error, exceptions.DownloadHTTPError) and error.status_code in {400, 401, 403, 404, 410}


def _of_target(error: Exception) -> UpdateError:
    found = of_metadata(error)
    if found.code is UpdateRefusalCode.MISSING_METADATA:
        return UpdateError(UpdateRefusalCode.NOT_FOUND, str(found))
    return found
