"""File sets: unpacked beside the old ones, and swapped by one rename of a link, so that there is never half of one.

`sets/NAME/VERSION/` are the unpacked sets and `sets/NAME/current` a link to the one in use; whatever uses the files
opens them through the link.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_agent.host.files import sync_file, sync_folder
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MAX_MEMBERS: Final = 20_000
_CHUNK: Final = 1024 * 1024
_CURRENT: Final = "current"


class FileSetInstaller:
    """Keeps its sets below `folder`."""

    is_repeatable = True
    keeps_files = False

    def __init__(self, folder: Path, machine: RebootControl, step: Callable[[str], None]) -> None:
        self._folder = folder
        self._machine = machine
        self._step = step
        self._digests: dict[Path, tuple[str, str]] = {}

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Unpack it, or copy the one file, beside the other sets."""
        target = artifact.target
        place = self._folder / target.name / target.version
        fresh = place.with_name(f".{target.version}.new")
        try:
            fresh.parent.mkdir(parents=True, exist_ok=True)
            for above in (self._folder, fresh.parent):
                above.chmod(0o755)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            self._step("stage:unpack")
            if artifact.file.name.endswith(ARCHIVES):
                _unpack(artifact.file, fresh, max(target.installed_bytes, 1))
            else:
                shutil.copyfile(artifact.file, fresh / artifact.file.name)
                (fresh / artifact.file.name).chmod(0o755)
            open_folders(fresh)
            tree = digest_of(fresh)
            sync_tree(fresh)
            self._step("stage:unpacked")
            if self._link(target.name) != target.version:
                # What an earlier try left under this name; never the one in use.
                shutil.rmtree(place, ignore_errors=True)
                self._step("stage:cleared")
                fresh.rename(place)
            sync_folder(place.parent)
        except (OSError, tarfile.TarError) as e:
            raise UpdateError(
                UpdateRefusalCode.INSTALL, f"{target.name} {target.version} cannot be unpacked: {e}"
            ) from e
        self._step("stage:done")
        return tree

    def install(self, artifact: VerifiedArtifact) -> None:
        """Swap the link."""
        self._point(artifact.target.name, artifact.target.version)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Where the link points, when the set behind it is as it was unpacked."""
        version = self._link(name)
        place = self._folder / name / version
        if not version or not place.is_dir():
            return ""
        if release is not None and release.version == version and release.tree != self._digest(place):
            return ""
        return version

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """Point the link at the set of before, or take it away."""
        if to is not None:
            if not (self._folder / bad.name / to.version).is_dir():
                raise UpdateError(UpdateRefusalCode.INSTALL, f"{bad.name} {to.version} is not there any more")
            self._point(bad.name, to.version)
            return
        (self._folder / bad.name / _CURRENT).unlink(missing_ok=True)
        if (self._folder / bad.name).is_dir():
            sync_folder(self._folder / bad.name)

    def confirm(self, target: UpdateTarget) -> None:
        """There is nothing to do."""

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Only where the target says so."""
        return target.restart is RestartMode.REBOOT

    def restart(self) -> None:
        """The machine."""
        self._machine.reboot()

    @property
    def run_id(self) -> str:
        """The machine's boot."""
        return self._machine.boot_id

    def program(self, target: UpdateTarget, name: str) -> str:
        """Inside the set that is in use."""
        return name if name.startswith("/") else str(self._folder / target.name / _CURRENT / name)

    def tidy(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Remove every other set."""
        kept = {release.version for release in keep} | {_CURRENT, self._link(name)}
        place = self._folder / name
        if not place.is_dir():
            return
        for path in place.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _link(self, name: str) -> str:
        try:
            return os.readlink(self._folder / name / _CURRENT)  # noqa: PTH115 - the text, not a path
        except OSError:
            return ""

    def _point(self, name: str, version: str) -> None:
        place = self._folder / name
        fresh = place / f".{_CURRENT}.new"
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(version)
            self._step("swap:before")
            fresh.replace(place / _CURRENT)
            self._step("swap:after")
            sync_folder(place)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{name}: the files cannot be swapped: {e.strerror}") from e

    def _digest(self, place: Path) -> str:
        """The digest of a set; read again only when size, time or place of one of its files changed."""
        stamp = _stamp(place)
        known = self._digests.get(place)
        if known is None or known[0] != stamp:
            self._digests[place] = known = (stamp, digest_of(place))
        return known[1]


def _unpack(file: Path, to: Path, most: int) -> None:
    total = 0
    with tarfile.open(file) as archive:
        for number, member in enumerate(archive):
            total += member.size
            if number >= MAX_MEMBERS or total > most:
                raise UpdateError(
                    UpdateRefusalCode.INSTALL, f"{file.name} unpacks to more than was signed: {most} bytes"
                )
            # `data`: nothing outside, no devices, no owners and special bits of somebody else.
            archive.extract(member, to, filter="data")


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_symlink() or path.is_file())


def digest_of(place: Path) -> str:
    """Of every name, kind, executable bit and content below a folder."""
    total = hashlib.sha256()
    for path in _files(place):
        name = str(path.relative_to(place))
        if path.is_symlink():
            total.update(f"link\0{name}\0{os.readlink(path)}\0".encode())  # noqa: PTH115 - the text, not a path
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"file\0{name}\0{path.stat().st_mode & 0o111}\0{content}\0".encode())
    return total.hexdigest()


def _stamp(place: Path) -> str:
    total = hashlib.sha256()
    for path in _files(place):
        is_at = path.lstat()
        total.update(f"{path}\0{is_at.st_size}\0{is_at.st_mtime_ns}\0{is_at.st_ctime_ns}\0{is_at.st_ino}\0".encode())
    return total.hexdigest()


def open_folders(place: Path) -> None:
    """Let everybody pass: who may read a file, the archive says; the agent's own mask is not meant for it."""
    for folder in (place, *(path for path in place.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o755)


def sync_tree(place: Path) -> None:
    """Make a whole folder survive a power loss."""
    for path in place.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(place)
