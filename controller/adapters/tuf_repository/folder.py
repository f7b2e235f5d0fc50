"""The files of a repository, written so that devices always read a consistent one.

`metadata/` and `targets/` below `repository/` are what any web server can serve; `online/` beside it holds the keys of
the roles that the running controller signs, and is never served.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from controller.adapters.files import write_file
from controller.ports.updates import NoRepositoryError, UpdatesError
from schemas.safe_files import open_own, opened_folder, set_folder_mode

_LOCK_MODE: Final = 0o644
_VERSIONED: Final = re.compile(r"^(\d{1,9})\.(root|snapshot|targets)\.json$")
_KEPT_SNAPSHOTS: Final = 16  # older ones are taken away: no device that is being served needs them
_MAX_METADATA_BYTES: Final = 16 * 1024 * 1024
_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)


class RepositoryFolder:
    """The files of one repository.

    Raises:
        UpdatesError: from every method, when a file cannot be read or written.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.served = base / "repository"
        self.metadata = self.served / "metadata"
        self.targets = self.served / "targets"
        self.online = base / "online"

    @property
    def is_there(self) -> bool:
        """Whether the folder has a repository."""
        return (self.metadata / "1.root.json").is_file()

    def make(self) -> None:
        """Creates the folders."""
        try:
            for path, mode in ((self.metadata, 0o755), (self.targets, 0o755), (self.online, 0o700)):
                path.mkdir(parents=True, exist_ok=True)
                with opened_folder(path) as folder:
                    set_folder_mode(folder, mode)
        except OSError as e:
            raise UpdatesError(f"{self.base}: cannot be made: {e.strerror}") from e

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the repository for one writer."""
        try:
            with opened_folder(self.base) as folder:
                lock = open_own(folder, "lock", _LOCK_MODE)
        except OSError as e:
            raise UpdatesError(f"{self.base}: cannot be written: {e.strerror}") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def versions(self, role: str) -> list[int]:
        """Returns the existing versions of a role, in order."""
        try:
            names = [_VERSIONED.fullmatch(path.name) for path in self.metadata.iterdir()]
        except OSError as e:
            raise NoRepositoryError(
                f"{self.base} holds no repository of updates: make one with cordon update init"
            ) from e
        return sorted(int(name[1]) for name in names if name is not None and name[2] == role)

    def root(self) -> Metadata[Root]:
        """Returns the latest root."""
        return self._newest(Root)

    def snapshot(self) -> Metadata[Snapshot] | None:
        """Returns the latest snapshot, if any."""
        return self._newest(Snapshot) if self.versions("snapshot") else None

    def newest_targets(self) -> Metadata[Targets]:
        """Returns the latest targets role; the caller verifies its signatures."""
        return self._newest(Targets)

    def timestamp(self) -> Metadata[Timestamp] | None:
        """Returns the timestamp, if any."""
        path = self.metadata / "timestamp.json"
        return self._load(path, Timestamp) if path.exists() else None

    def read_root(self, version: int) -> bytes:
        """Returns a root as devices receive it."""
        try:
            return (self.metadata / f"{version}.root.json").read_bytes()
        except OSError as e:
            raise UpdatesError(f"there is no root {version}: {e.strerror}") from e

    def write(self, metadata: Metadata[Any]) -> None:
        """Writes a signed role; a new timestamp replaces the previous one."""
        role, version = metadata.signed.type, metadata.signed.version
        name = "timestamp.json" if role == Timestamp.type else f"{version}.{role}.json"
        write_whole(self.metadata / name, metadata.to_bytes())

    def forget_old_snapshots(self) -> None:
        """Deletes all snapshots but the latest."""
        for version in self.versions("snapshot")[:-_KEPT_SNAPSHOTS]:
            (self.metadata / f"{version}.snapshot.json").unlink(missing_ok=True)

    def _newest(self, role: type[_Signed]) -> Metadata[_Signed]:
        versions = self.versions(role.type)
        if not versions:
            raise NoRepositoryError(f"{self.base} holds no repository of updates: make one with cordon update init")
        return self._load(self.metadata / f"{versions[-1]}.{role.type}.json", role)

    @staticmethod
    def _load(path: Path, role: type[_Signed]) -> Metadata[_Signed]:
        try:
            if path.stat().st_size > _MAX_METADATA_BYTES:
                raise UpdatesError(f"{path}: larger than {_MAX_METADATA_BYTES} bytes")
            found: Metadata[_Signed] = Metadata.from_bytes(path.read_bytes())
        except OSError as e:
            raise UpdatesError(f"{path}: cannot be read: {e.strerror}") from e
        except RepositoryError as e:
            raise UpdatesError(f"{path}: not TUF metadata: {e}") from e
        if found.signed.type != role.type:
            raise UpdatesError(f"{path}: holds the role {found.signed.type}")
        return found


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file so that a reader, or a crash, sees the old or the new one.

    Raises:
        UpdatesError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content, mode, replace=True)
    except OSError as e:
        raise UpdatesError(f"{path}: cannot be written: {e.strerror}") from e
