"""Disk encryption (section `disk`): every local file system and swap area, traced through the devices below it."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.system import fscrypt
from device_agent.collectors.system.block_devices import BlockDevices, EncryptionStatus, combine, read_cipher
from device_agent.collectors.system.mounts import (
    MEMORY,
    NETWORK,
    MountEntry,
    is_below,
    mount_of,
    read_mounts,
    unescape,
)
from device_agent.collectors.system.zfs import zfs_status
from device_agent.host.files import read_text
from device_agent.host.reading import GapRecorder, ReadingGap
from device_agent.host.system import System

_MAX_SWAPS: Final = 64
_MAX_NESTED: Final = 4  # file systems in files and overlays of other file systems
_LAYERED: Final = frozenset({"overlay", "overlayfs"})
_FLASH: Final = frozenset({"ubifs", "jffs2", "yaffs", "yaffs2", "logfs"})
_BOOT_PATHS: Final = ("/boot", "/efi")  # the firmware can only read them unencrypted
_MORE_DEVICES: Final = ("logdev", "rtdev", "device")  # options of XFS and btrfs that name further devices
_INSIDE: Final = "the file system below an overlay is not visible from inside"


def collect(system: System) -> Section:
    """Collects the `disk` section.

    Raises:
        FactsUnavailableError: the kernel's mount table is missing.
        OSError: it cannot be read.
    """
    section = SectionBuilder()
    reading = read_mounts(system)
    disks = LocalDisks(system, reading.value)
    mounted = _unique([mount for mount in reading.value if mount.is_local and not disks.is_image(mount)])
    statuses = {mount: disks.status_of(mount) for mount in mounted}
    root = next((mount for mount in reversed(reading.value) if mount.path == "/"), None)
    _add_answers(section, statuses, disks.status_of(root) if root is not None and root.is_local else _not_local(root))
    if reading.gaps:
        _add_table_gaps(section, reading.gaps)
    mounts = [
        {
            "path": mount.path,
            "device": mount.source,
            "kind": mount.kind,
            "encrypted": status.encrypted,
            "how": status.method,
        }
        for mount, status in sorted(statuses.items(), key=lambda item: item[0].path)
    ]
    section.set(mounts=mounts)
    _add_fscrypt(system, section, mounted)
    _add_swaps(system, section, disks)
    return section.build()


def _add_answers(
    section: SectionBuilder, statuses: dict[MountEntry, EncryptionStatus], root_status: EncryptionStatus
) -> None:
    """Adds `root_encrypted` and `data_encrypted`, with the reasons where they are not decided."""
    data = {
        mount: status
        for mount, status in statuses.items()
        if mount.is_writable and mount.path != "/" and not any(is_below(mount.path, path) for path in _BOOT_PATHS)
    }
    # Without another file system, the data is on the root.
    data_status = combine(list(data.values())) if data else root_status
    section.set(root_encrypted=root_status.encrypted, data_encrypted=data_status.encrypted)
    if root_status.encrypted is None:
        section.gap("root_encrypted", reason=root_status.reason or "not determined", source="/")
    for mount, status in statuses.items():
        if status.encrypted is None:
            section.gap("mounts", reason=status.reason or "not determined", source=mount.path)
            # An unencrypted file system decides for all of them, whatever the others are.
            if mount in data and data_status.encrypted is None:
                section.gap("data_encrypted", reason=status.reason or "not determined", source=mount.path)
    if not data and data_status.encrypted is None:
        section.gap("data_encrypted", reason=data_status.reason or "not determined", source="/")


def _not_local(root: MountEntry | None) -> EncryptionStatus:
    if root is None:
        return EncryptionStatus(None, "", "nothing is mounted as the root")
    if root.kind in MEMORY:
        return EncryptionStatus(None, "", f"the root is in memory ({root.kind})")
    if root.kind in NETWORK:
        return EncryptionStatus(None, "", f"the root is on another machine ({root.kind})")
    return EncryptionStatus(None, "", f"the root is of a kind that is not known ({root.kind})")


def _add_table_gaps(section: SectionBuilder, gaps: Sequence[ReadingGap]) -> None:
    """Adds the lines of the mount table that were not understood: each may be a file system that is not encrypted."""
    section.add_gaps(gaps, "mounts", "fscrypt")
    for field in ("root_encrypted", "data_encrypted"):
        if section[field] is not False:
            section.add_gaps(gaps, field)


def _unique(mounts: Sequence[MountEntry]) -> list[MountEntry]:
    """Returns one mount of each file system: containers and chroots mount single files of it in many places."""
    by_device: dict[tuple[str, str], list[MountEntry]] = {}
    for mount in mounts:
        by_device.setdefault((mount.numbers, mount.source), []).append(mount)
    return [max(places, key=_rank) for places in by_device.values()]


def _rank(mount: MountEntry) -> tuple[bool, bool, bool]:
    is_boot = any(is_below(mount.path, path) for path in _BOOT_PATHS)
    return mount.path == "/", mount.is_writable and not is_boot, not is_boot


class LocalDisks:
    """The file systems of a machine, and whether each is encrypted."""

    def __init__(self, system: System, mounts: Sequence[MountEntry]) -> None:
        self._system = system
        self._mounts = mounts
        self._nesting = 0
        self.devices = BlockDevices(system, self.status_of_path, partial(read_cipher, system))

    def is_image(self, mount: MountEntry) -> bool:
        """Whether it is a read-only image in a file of a file system that is mounted itself, such as a snap."""
        if mount.is_writable or mount.path == "/":
            return False
        block = self.devices.name_of(mount.source, mount.numbers)
        backing = read_text(self._system.path(f"/sys/class/block/{block}/loop/backing_file")).strip() if block else ""
        holder = mount_of(backing, self._mounts) if backing.startswith("/") else None
        return holder is not None and holder.is_local and holder != mount

    def status_of_path(self, path: str) -> EncryptionStatus:
        """Returns the encryption of the file system that holds a path."""
        mount = mount_of(path, self._mounts) if path.startswith("/") else None
        if mount is None:
            return EncryptionStatus(None, "", f"the file system of {path} is not known")
        return self.status_of(mount)

    def status_of(self, mount: MountEntry) -> EncryptionStatus:
        """Returns the encryption of a file system."""
        if self._nesting >= _MAX_NESTED:
            return EncryptionStatus(None, "", "file systems are nested too deeply")
        self._nesting += 1
        try:
            return self._status_of(mount)
        finally:
            self._nesting -= 1

    def _status_of(self, mount: MountEntry) -> EncryptionStatus:
        kind = mount.kind
        if not mount.is_local:
            return EncryptionStatus(None, "", f"the file system is in memory or on another machine ({kind})")
        if kind in _LAYERED:
            return self._overlay(mount)
        if kind == "ecryptfs":
            is_open = any(option.startswith("ecryptfs_passthrough") for option in mount.options)
            return EncryptionStatus(None if is_open else True, "ecryptfs", "unencrypted files are passed through")
        if kind == "zfs":
            return zfs_status(self._system, mount.source, self._vdev)
        if kind in _FLASH:
            return EncryptionStatus(encrypted=False, method="flash")
        if kind == "btrfs":
            return self._btrfs(mount)
        if kind == "aufs" or not mount.is_known:
            return EncryptionStatus(None, "", f"what is below a file system of the kind {kind} is not known")
        return self._on_devices(mount)

    def _on_devices(self, mount: MountEntry) -> EncryptionStatus:
        sources = mount.source.split(":") if mount.kind == "bcachefs" else [mount.source]
        numbers = mount.numbers if len(sources) == 1 else ""
        more = [device for option in _MORE_DEVICES for device in mount.values(option)]
        status = combine(
            [self.devices.status_of(sources[0], numbers), *(self.devices.status_of(one) for one in sources[1:] + more)]
        )
        if mount.kind == "bcachefs" and status.encrypted is False:
            return EncryptionStatus(None, "", "encryption of bcachefs is not read")
        return status

    def _btrfs(self, mount: MountEntry) -> EncryptionStatus:
        """The first device is in the mount table; sysfs has all devices of each file system."""
        first = self.devices.name_of(mount.source)
        folders = sorted(self._system.path("/sys/fs/btrfs").glob("*/devices")) if first else []
        folder = next((folder for folder in folders if os.path.lexists(folder / str(first))), None)
        if folder is None:
            status = self.devices.status_of(mount.source)
            if status.encrypted:
                return EncryptionStatus(None, status.method, "the other devices of the file system are not visible")
            return status
        names = sorted(path.name for path in folder.iterdir())
        return combine([self.devices.status_of_block(name) for name in names])

    def _overlay(self, mount: MountEntry) -> EncryptionStatus:
        """An overlay is encrypted if all its folders are; the upper one has what was changed."""
        folders = [*mount.values("upperdir"), *(one for text in mount.values("lowerdir") for one in text.split(":"))]
        statuses = []
        for folder in folders:
            holder = mount_of(folder, self._mounts) if folder.startswith("/") else None
            if holder is None or holder == mount:
                statuses.append(EncryptionStatus(None, "", _INSIDE))
            elif holder.kind not in MEMORY:  # nothing of it is on a disk
                statuses.append(self.status_of(holder))
        return combine(statuses) if statuses else EncryptionStatus(None, "", _INSIDE)

    def _vdev(self, path: str) -> EncryptionStatus:
        return self.devices.status_of(path) if path.startswith("/dev/") else self.status_of_path(path)


def _add_fscrypt(system: System, section: SectionBuilder, mounts: Sequence[MountEntry]) -> None:
    paths = []
    for mount in mounts:
        reading = fscrypt.encrypted_folder(system, mount.path)
        section.add_gaps(reading.gaps, "fscrypt")
        paths += [mount.path] if reading.value else []
    section.set(fscrypt=sorted(paths))


def _add_swaps(system: System, section: SectionBuilder, disks: LocalDisks) -> None:
    swaps: list[tuple[str, EncryptionStatus]] = []
    gaps = GapRecorder()
    with gaps.capture("/proc/swaps"):
        for number, line in enumerate(read_text(system.path("/proc/swaps")).splitlines()):
            fields = line.split()
            if number == 0 or not fields:
                continue
            if len(fields) < 2 or number > _MAX_SWAPS:
                gaps.add("not understood", f"/proc/swaps:{number + 1}")
                break
            device = unescape(fields[0])
            swaps.append((device, _swap_status(system, device, fields[1], disks)))
    for device, status in swaps:
        if status.encrypted is None and status.method != "memory":
            gaps.add(status.reason or "not determined", device)
    summary = _swap_summary([status for _, status in swaps])
    # One that is not encrypted decides, whatever the others are.
    section.add_gaps(gaps.gaps, "swaps", *(["swap"] if summary != "plain" else []))
    rows = sorted(swaps, key=lambda item: item[0])
    section.set(
        swap=summary,
        swaps=[{"device": device, "encrypted": status.encrypted, "how": status.method} for device, status in rows],
    )


def _swap_status(system: System, device: str, kind: str, disks: LocalDisks) -> EncryptionStatus:
    if kind == "file":
        return disks.status_of_path(device)
    name = device.rpartition("/")[2]
    if not name.startswith("zram"):
        return disks.devices.status_of(device)
    # Cold pages of zram may be written to a device.
    backing = read_text(system.path(f"/sys/class/block/{name}/backing_dev")).strip()
    if backing.startswith("/"):
        return disks.devices.status_of(backing)
    return EncryptionStatus(encrypted=None, method="memory")


def _swap_summary(statuses: Sequence[EncryptionStatus]) -> str:
    written = [status for status in statuses if status.method != "memory"]
    if not written:
        return "none"
    return {True: "encrypted", False: "plain", None: "unknown"}[combine(written).encrypted]
