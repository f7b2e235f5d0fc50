"""Whether a file survives a restart: its file system is on a disk, and not in memory."""

import os
from pathlib import PurePosixPath

from device_agent.collectors.system.mounts import MEMORY, MountEntry, mount_of, read_mounts, unescape
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_text
from device_agent.host.image_path import NOT_IN_AN_IMAGE, ImagePath
from device_agent.host.system import System

# They move folders into memory on their own, and no mount of the image shows it.
_TO_MEMORY = ("/etc/log2ram.conf", "/etc/folder2ram/folder2ram.conf", "/etc/overlayroot.conf")
_LAYERED = frozenset({"overlay", "overlayfs"})


def is_kept(system: System, path: str) -> bool | None:
    """Returns whether what is written to a path is there after a restart; None for an overlay seen from inside.

    Raises:
        FactsUnavailableError: the mount table cannot be read.
        OSError: a file cannot be read.
    """
    mounts, is_whole = _mounts(system)
    place = _without_links(system, path)
    mount = mount_of(place, mounts)
    if mount is None:
        return None if is_whole else place.split("/")[1] not in NOT_IN_AN_IMAGE  # an image's root is on a disk
    if mount.kind in _LAYERED:
        uppers = mount.values("upperdir")
        holder = mount_of(uppers[0], mounts) if uppers else None
        return None if holder is None or holder == mount else holder.kind not in MEMORY
    return mount.kind not in MEMORY


def _mounts(system: System) -> tuple[list[MountEntry], bool]:
    """Returns the mount table and True; of a prepared root without one, what fstab mounts, and False."""
    try:
        reading = read_mounts(system)
    except FactsUnavailableError:
        if system.is_live:
            raise
        movers = [path for path in _TO_MEMORY if system.path(path).exists()]
        if movers:
            raise FactsUnavailableError(f"{movers[0]} may keep logs in memory") from None
        return _fstab(read_text(system.path("/etc/fstab"))), False
    if reading.gaps:
        raise FactsUnavailableError("a line of the mount table is not understood")
    return reading.value, True


def _fstab(text: str) -> list[MountEntry]:
    rows = [line.partition("#")[0].split() for line in text.splitlines()]
    return [
        MountEntry(unescape(row[1]), "0:0", row[2], unescape(row[0]), is_writable=True)
        for row in rows
        if len(row) >= 3 and row[1].startswith("/")
    ]


def _without_links(system: System, path: str) -> str:
    """Resolves links of folders below the root; where one leads out of it, it stays as it is."""
    if isinstance(system.root, ImagePath):
        return "/" + str(system.path(path).resolve().relative_to(system.root))
    resolved = PurePosixPath(os.path.realpath(system.path(path)))
    root = PurePosixPath(os.path.realpath(system.root))
    return "/" + str(resolved.relative_to(root)) if resolved.is_relative_to(root) else path
