"""Decides what may be installed: TUF's client workflow from the root that was installed with the device."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from device_agent.errors import StoppedError
from device_agent.host.clock import Clock
from device_agent.host.files import write_whole
from device_agent.updates.errors import UpdateError, of_metadata
from schemas.updates import InstallParams, UpdateRefusalCode, UpdateTarget

if TYPE_CHECKING:  # python-tuf is as large as the rest of the agent: it is loaded with the first update
    from tuf.api.metadata import TargetFile

CLOCK_TOLERANCE: Final = timedelta(minutes=10)
_MAX_ROOT_BYTES: Final = 512 * 1024
_ROLES: Final = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class RepositorySource:
    """Where updates come from. `root`: the file with the first root; `cache`: what was verified before."""

    url: str
    root: Path
    cache: Path
    tls: Callable[[], ssl.SSLContext | None]
    min_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class VerifiedTarget:
    """A target that was found in metadata that holds, and what fetches it."""

    target: UpdateTarget
    download: Callable[[Path, Callable[[int], None], Callable[[str], None]], None]


class _Seen(BaseModel):
    """The newest of everything that was verified; beside the cache, so that deleting one of them gains nothing."""

    model_config = ConfigDict(extra="forbid")
    at: datetime
    versions: dict[str, int] = {}
    keys: dict[str, str] = {}
    """By which keys; with other ones versions begin anew, which heals what an attacker counted up for ever."""


class TufClient:
    """One device's view of the repository."""

    def __init__(self, source: RepositorySource, clock: Clock, stopping: threading.Event) -> None:
        self._source = source
        self._clock = clock
        self._stopping = stopping
        self._seen_path = source.cache / "seen.json"

    @property
    def root_version(self) -> int | None:
        """The version of the root that is trusted now; None before the first look."""
        return _version(self._source.cache / "root.json")

    def find(self, order: InstallParams) -> VerifiedTarget:
        """The target that the order names, out of metadata that was verified just now.

        Raises:
            UpdateError: the metadata does not hold, or says something else than the order.
        """
        from tuf.api import exceptions
        from tuf.ngclient import Updater

        from device_agent.updates.download import MetadataFetcher

        self._check_clock()
        fetcher = MetadataFetcher(self._source.tls(), self._source.min_bytes_per_second, self._stopping)
        base = self._source.url.rstrip("/")
        try:
            self._source.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            updater = Updater(
                str(self._source.cache), f"{base}/metadata/", fetcher=fetcher, bootstrap=self._first_root()
            )
            updater.refresh()
            info = updater.get_targetinfo(order.target)
        except (exceptions.RepositoryError, exceptions.DownloadError) as e:
            if isinstance(e.__cause__, StoppedError):
                raise StoppedError from e
            raise of_metadata(e) from e
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.OTHER, f"{self._source.cache}: {e.strerror}") from e
        self._remember()
        if info is None:
            raise UpdateError(UpdateRefusalCode.NOT_FOUND, f"{order.target} is not published, or was withdrawn")
        return VerifiedTarget(_matching(info, order), _downloader(fetcher, base, info, self._stopping))

    def _first_root(self) -> bytes:
        path = self._source.root
        try:
            with path.open("rb") as file:
                root = file.read(_MAX_ROOT_BYTES + 1)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.OTHER, f"the first root {path} cannot be read: {e.strerror}") from e
        if len(root) > _MAX_ROOT_BYTES:
            raise UpdateError(UpdateRefusalCode.OTHER, f"the first root {path} is larger than {_MAX_ROOT_BYTES} bytes")
        return root

    def _check_clock(self) -> None:
        """A clock that was set back would make metadata valid that has ended."""
        seen = self._seen()
        if seen is not None and self._clock.now() < seen.at - CLOCK_TOLERANCE:
            now = f"{self._clock.now():%Y-%m-%d %H:%M}"
            text = f"this device's clock says {now}, and it was {seen.at:%Y-%m-%d %H:%M} before: it was set back"
            raise UpdateError(UpdateRefusalCode.CLOCK, text)

    def _remember(self) -> None:
        versions = {role: _version(self._source.cache / f"{role}.json") or 0 for role in _ROLES}
        keys = _keys(self._source.cache / "root.json")
        seen = self._seen()
        for role, version in (seen.versions if seen is not None else {}).items():
            is_same = role == "root" or (seen is not None and seen.keys.get(role) == keys.get(role))
            if is_same and versions.get(role, 0) < version:
                text = f"{role} {versions.get(role, 0)} is older than {version}, which was seen before"
                raise UpdateError(UpdateRefusalCode.ROLLBACK, text)
        now = self._clock.now() if seen is None else max(self._clock.now(), seen.at)
        fresh = _Seen(at=now.astimezone(UTC), versions=versions, keys=keys)
        write_whole(self._seen_path, self._source.cache / ".seen.new", fresh.model_dump_json().encode())

    def _seen(self) -> _Seen | None:
        try:
            return _Seen.model_validate_json(self._seen_path.read_bytes())
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


def _matching(info: "TargetFile", order: InstallParams) -> UpdateTarget:
    sha256 = info.hashes.get("sha256")
    if sha256 != order.sha256 or info.length != order.length:
        text = f"{order.target}: the order names {order.length} bytes with SHA-256 {order.sha256[:16]}..., "
        raise UpdateError(UpdateRefusalCode.MISMATCH, f"{text}signed are {info.length} with {str(sha256)[:16]}...")
    try:
        target = UpdateTarget.model_validate(info.custom)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{order.target}: what is signed about it cannot be read here: {where}: {first['msg']}"
        raise UpdateError(UpdateRefusalCode.BAD_METADATA, text) from e
    if (target.name, target.version) != (order.name, order.version):
        text = f"{order.target} is signed as {target.name} {target.version}"
        raise UpdateError(UpdateRefusalCode.MISMATCH, text)
    return target


def _downloader(
    fetcher: Any, base: str, info: "TargetFile", stopping: threading.Event
) -> Callable[[Path, Callable[[int], None], Callable[[str], None]], None]:
    from device_agent.updates.download import TargetDownload

    folder, _, name = info.path.rpartition("/")
    url = f"{base}/targets/{folder}/{info.hashes['sha256']}.{name}"

    def download(to: Path, told: Callable[[int], None], step: Callable[[str], None]) -> None:
        TargetDownload(fetcher, url, info, to, stopping).run(told, step)

    return download
