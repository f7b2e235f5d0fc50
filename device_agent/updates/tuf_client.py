"""Decides what may be installed: the TUF client workflow, starting from the root that the device was set up with."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from device_agent.domain.verdict import EARLIEST_CLOCK
from device_agent.errors import StoppedError
from device_agent.host.clock import Clock
from device_agent.host.files import write_whole
from device_agent.updates.errors import UpdateError, from_tuf_error
from device_agent.updates.order_time import OrderTime
from schemas.updates import InstallParams, UpdateRefusalCode, UpdateTarget

if TYPE_CHECKING:  # python-tuf is as large as the rest of the agent: it is loaded with the first update
    from tuf.api.metadata import TargetFile

CLOCK_TOLERANCE: Final = timedelta(minutes=10)
CLOCK_WAIT: Final = 300.0  # seconds in which a device that has just started may get the time
_CLOCK_CHECK: Final = 1.0  # seconds
_MAX_ROOT_BYTES: Final = 512 * 1024
_ROLES: Final = ("root", "timestamp", "snapshot", "targets")
DownloadTarget = Callable[[Path, Callable[[int], None], Callable[[str], None]], None]


@dataclass(frozen=True, slots=True)
class RepositorySource:
    """The repository: `root` is the file of the first root, `cache` the folder of verified metadata."""

    url: str
    root: Path
    cache: Path
    tls: Callable[[], ssl.SSLContext | None]
    min_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class VerifiedTarget:
    """A target in verified metadata; `download(path, on_bytes, crash_point)` fetches it."""

    target: UpdateTarget
    download: DownloadTarget


class _HighWaterMark(BaseModel):
    """The newest verified versions; apart from the cache, so that deleting one of them enables no rollback."""

    model_config = ConfigDict(extra="forbid")
    at: datetime
    versions: dict[str, int] = {}
    keys: dict[str, str] = {}
    """The keys of each role: with other keys versions start anew, which repairs versions that an attacker increased."""


class TufClient:
    """The TUF client of one device."""

    def __init__(self, source: RepositorySource, clock: Clock, stopping: threading.Event) -> None:
        self._source = source
        self._clock = clock
        self._stopping = stopping
        self._high_water_path = source.cache / "seen.json"

    @property
    def root_version(self) -> int | None:
        """The version of the trusted root; None before the first refresh."""
        return _version(self._source.cache / "root.json")

    def get_verified_target(self, order: InstallParams, time: OrderTime) -> VerifiedTarget:
        """Refreshes and verifies the metadata, and returns the target that the order names.

        Raises:
            UpdateError: the metadata is not valid, or does not match the order.
        """
        from tuf.api import exceptions
        from tuf.ngclient import Updater

        from device_agent.updates.download import MetadataFetcher

        self._wait_for_time(time)
        rate = self._source.min_bytes_per_second
        fetcher = MetadataFetcher(self._source.tls(), rate, lambda: time.seconds_left, self._stopping)
        base = self._source.url.rstrip("/")
        try:
            self._source.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            updater = Updater(
                str(self._source.cache), f"{base}/metadata/", fetcher=fetcher, bootstrap=self._bootstrap_root()
            )
            updater.refresh()
            info = updater.get_targetinfo(order.target)
            self._save_high_water()
        except (exceptions.RepositoryError, exceptions.DownloadError) as e:
            if isinstance(e.__cause__, StoppedError):
                raise StoppedError from e
            raise from_tuf_error(e) from e
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{self._source.cache}: {e.strerror}") from e
        if info is None:
            raise UpdateError(UpdateRefusalCode.NOT_FOUND, f"{order.target} is not published, or was withdrawn")
        return VerifiedTarget(_check_matches_order(info, order), _downloader(fetcher, base, info, self._stopping))

    def _bootstrap_root(self) -> bytes:
        path = self._source.root
        try:
            with path.open("rb") as file:
                root = file.read(_MAX_ROOT_BYTES + 1)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.OTHER, f"the first root {path} cannot be read: {e.strerror}") from e
        if len(root) > _MAX_ROOT_BYTES:
            raise UpdateError(UpdateRefusalCode.OTHER, f"the first root {path} is larger than {_MAX_ROOT_BYTES} bytes")
        return root

    def _wait_for_time(self, time: OrderTime) -> None:
        """Waits until the clock is set: with an earlier one, expired metadata would be valid (again)."""
        end = self._clock.monotonic() + CLOCK_WAIT
        while text := self._clock_fault():
            left = end - self._clock.monotonic()
            if left <= 0:
                raise UpdateError(UpdateRefusalCode.CLOCK, text)
            if self._stopping.wait(min(left, _CLOCK_CHECK)):
                raise StoppedError
            time.start()

    def _clock_fault(self) -> str:
        now, mark = self._clock.now(), self._high_water()
        text = f"this device's clock says {now:%Y-%m-%d %H:%M}"
        if now < EARLIEST_CLOCK:
            return f"{text}: it is not set yet"
        if mark is not None and now < mark.at - CLOCK_TOLERANCE:
            return f"{text}, and it was {mark.at:%Y-%m-%d %H:%M} before: it was set back, or is not set yet"
        return ""

    def _save_high_water(self) -> None:
        versions = {role: _version(self._source.cache / f"{role}.json") or 0 for role in _ROLES}
        keys = _keys(self._source.cache / "root.json")
        mark = self._high_water()
        for role, version in (mark.versions if mark is not None else {}).items():
            has_same_keys = role == "root" or (mark is not None and mark.keys.get(role) == keys.get(role))
            if has_same_keys and versions.get(role, 0) < version:
                text = f"{role} {versions.get(role, 0)} is older than {version}, which was verified before"
                raise UpdateError(UpdateRefusalCode.ROLLBACK, text)
        at = self._clock.now() if mark is None else max(self._clock.now(), mark.at)
        new = _HighWaterMark(at=at.astimezone(UTC), versions=versions, keys=keys)
        write_whole(self._high_water_path, self._source.cache / ".seen.new", new.model_dump_json().encode())

    def _high_water(self) -> _HighWaterMark | None:
        try:
            return _HighWaterMark.model_validate_json(self._high_water_path.read_bytes())
        except (OSError, ValidationError):
            return None


def _version(path: Path) -> int | None:
    try:
        version: Any = json.loads(path.read_bytes())["signed"]["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) else None


def _keys(path: Path) -> dict[str, str]:
    try:
        roles: dict[str, Any] = json.loads(path.read_bytes())["signed"]["roles"]
        return {role: ",".join(sorted(roles[role]["keyids"])) for role in _ROLES}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check_matches_order(info: "TargetFile", order: InstallParams) -> UpdateTarget:
    sha256 = info.hashes.get("sha256")
    if sha256 != order.sha256 or info.length != order.length:
        text = f"{order.target}: the order names {order.length} bytes with SHA-256 {order.sha256[:16]}..., "
        raise UpdateError(UpdateRefusalCode.MISMATCH, f"{text}signed are {info.length} with {str(sha256)[:16]}...")
    try:
        target = UpdateTarget.model_validate(info.custom)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{order.target}: its signed metadata cannot be read here: {where}: {first['msg']}"
        raise UpdateError(UpdateRefusalCode.BAD_METADATA, text) from e
    if (target.name, target.version) != (order.name, order.version):
        text = f"{order.target} is signed as {target.name} {target.version}"
        raise UpdateError(UpdateRefusalCode.MISMATCH, text)
    return target


def _downloader(fetcher: Any, base: str, info: "TargetFile", stopping: threading.Event) -> DownloadTarget:
    from device_agent.updates.download import TargetDownload

    folder, _, name = info.path.rpartition("/")
    url = f"{base}/targets/{folder}/{info.hashes['sha256']}.{name}"

    def download(path: Path, on_bytes: Callable[[int], None], crash_point: Callable[[str], None]) -> None:
        TargetDownload(fetcher, url, info, path, stopping).run(on_bytes, crash_point)

    return download
