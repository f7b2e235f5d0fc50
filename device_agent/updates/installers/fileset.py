"""File sets: unpacked apart from the ones in use, and switched atomically by the rename of a link.

`sets/NAME/VERSION/` are the unpacked sets and `sets/NAME/current` is a link to the one in use; programs open the files
through the link.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_agent.host.files import sync_file, sync_folder
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, RebootingInstaller, VerifiedArtifact
from device_agent.updates.installers.unpacking import unpack
from device_agent.updates.records import InstalledRelease
from schemas.file_sets import ARCHIVES, ArchiveError
from schemas.updates import UpdateRefusalCode, UpdateTarget

_CURRENT: Final = "current"


class FileSetInstaller(RebootingInstaller):
    """Stores file sets below `folder`."""

    is_repeatable = True
    needs_download_for_rollback = False

    def __init__(self, folder: Path, machine: RebootControl, crash_point: Callable[[str], None]) -> None:
        super().__init__(machine)
        self._folder = folder
        self._crash_point = crash_point
        self._digests: dict[Path, tuple[str, str]] = {}

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Unpacks the archive, or copies the file, and returns the digest of the set."""
        target = artifact.target
        folder = self._folder / target.name / target.version
        staging = folder.with_name(f".{target.version}.new")
        try:
            staging.parent.mkdir(parents=True, exist_ok=True)
            for parent in (self._folder, staging.parent):
                parent.chmod(0o755)
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            self._crash_point("stage:unpack")
            if artifact.file.name.endswith(ARCHIVES):
                unpack(artifact.file, staging, max(target.installed_bytes, 1))
            else:
                shutil.copyfile(artifact.file, staging / artifact.file.name)
                (staging / artifact.file.name).chmod(0o755)
            make_directories_traversable(staging)
            digest = tree_digest(staging)
            fsync_tree(staging)
            self._crash_point("stage:unpacked")
            if self._link(target.name) != target.version:
                # The remains of an earlier attempt; never the set in use.
                shutil.rmtree(folder, ignore_errors=True)
                self._crash_point("stage:cleared")
                staging.rename(folder)
            sync_folder(folder.parent)
        except (OSError, ArchiveError) as e:
            raise UpdateError(
                UpdateRefusalCode.INSTALL, f"{target.name} {target.version} cannot be unpacked: {e}"
            ) from e
        self._crash_point("stage:done")
        return digest

    def install(self, artifact: VerifiedArtifact) -> None:
        """Switches the link."""
        self._switch_link(artifact.target.name, artifact.target.version)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the version that the link points to, unless its files were changed since they were unpacked."""
        version = self._link(name)
        folder = self._folder / name / version
        if not version or not folder.is_dir():
            return ""
        if release is not None and release.version == version and release.tree_digest != self._digest(folder):
            return ""
        return version

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Switches the link to the previous set, or removes it."""
        if previous is not None:
            if not (self._folder / failed.name / previous.version).is_dir():
                text = f"{failed.name} {previous.version} does not exist any more"
                raise UpdateError(UpdateRefusalCode.INSTALL, text)
            self._switch_link(failed.name, previous.version)
            return
        (self._folder / failed.name / _CURRENT).unlink(missing_ok=True)
        if (self._folder / failed.name).is_dir():
            sync_folder(self._folder / failed.name)

    def resolve_program(self, target: UpdateTarget, name: str) -> str:
        """Returns the path inside the set in use, unless the name is absolute."""
        return name if name.startswith("/") else str(self._folder / target.name / _CURRENT / name)

    def prune(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Removes every other set."""
        kept = {release.version for release in keep} | {_CURRENT, self._link(name)}
        folder = self._folder / name
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _link(self, name: str) -> str:
        try:
            return os.readlink(self._folder / name / _CURRENT)  # noqa: PTH115 - the text, not a path
        except OSError:
            return ""

    def _switch_link(self, name: str, version: str) -> None:
        folder = self._folder / name
        link = folder / f".{_CURRENT}.new"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(version)
            self._crash_point("swap:before")
            link.replace(folder / _CURRENT)
            self._crash_point("swap:after")
            sync_folder(folder)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{name}: the link cannot be switched: {e.strerror}") from e

    def _digest(self, folder: Path) -> str:
        """Returns the digest of a set; computed again only when size, time or inode of a file changed."""
        key = _change_key(folder)
        cached = self._digests.get(folder)
        if cached is None or cached[0] != key:
            self._digests[folder] = cached = (key, tree_digest(folder))
        return cached[1]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def tree_digest(folder: Path) -> str:
    """Returns the digest of every name, kind, executable bit and content below a folder."""
    total = hashlib.sha256()
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            total.update(f"link\0{name}\0{os.readlink(path)}\0".encode())  # noqa: PTH115 - the text, not a path
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"file\0{name}\0{path.stat().st_mode & 0o111}\0{content}\0".encode())
    return total.hexdigest()


def _change_key(folder: Path) -> str:
    total = hashlib.sha256()
    for path in _files(folder):
        status = path.lstat()
        total.update(
            f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}\0".encode()
        )
    return total.hexdigest()


def make_directories_traversable(folder: Path) -> None:
    """Opens the directories to every user, whatever the agent's umask: the archive has the modes of the files."""
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
        directory.chmod(0o755)


def fsync_tree(folder: Path) -> None:
    """Makes a folder with its content survive a power loss."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)
