"""Disk encryption (section `disk`): every local file system and swap area, traced through the devices below it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_text
from device_agent.host.system import System

_MAX_BYTES: Final = 4 * 1024 * 1024  # of mountinfo
_MAX_MOUNTS: Final = 4096
_MAX_DEPTH: Final = 8  # layers of devices: partition, RAID, LUKS, LVM
_MAX_DEVICES: Final = 256  # below one file system
_CRYPT_UUID: Final = re.compile(r"^CRYPT-(LUKS1|LUKS2|PLAIN|LOOPAES|TCRYPT|BITLK|FVAULT2)-")
# All other types are in memory, virtual, or on another machine.
_ON_DISK: Final = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "nilfs2", "bcachefs", "zfs", "vfat", "exfat",
        "msdos", "ntfs", "ntfs3", "fuseblk", "ubifs", "jffs2", "yaffs2", "udf", "overlay", "overlayfs", "ecryptfs",
    }
)  # fmt: skip
_LAYERED: Final = frozenset({"overlay", "overlayfs"})
_FLASH: Final = frozenset({"ubifs", "jffs2", "yaffs2"})
_BOOT_PATHS: Final = ("/boot", "/efi")  # the firmware can only read them unencrypted
_OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_DEVICE_NUMBERS: Final = re.compile(r"^\d{1,6}:\d{1,9}$")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of mountinfo."""

    path: str
    numbers: str
    kind: str
    source: str
    is_writable: bool


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """Whether a file system or swap area is encrypted, by which method, and why that is unknown."""

    encrypted: bool | None
    method: str = ""
    reason: str = ""


def collect(system: System) -> Section:
    """Collects the `disk` section.

    Raises:
        FactsUnavailableError: the kernel's mount table is missing.
    """
    mounted = _mounted(system)
    section = SectionBuilder()
    statuses = {mount: _encryption_of(system, mount) for mount in mounted}
    _add_swaps(system, section)
    root = next((status for mount, status in statuses.items() if mount.path == "/"), None)
    data = {
        mount: status.encrypted
        for mount, status in statuses.items()
        if mount.is_writable and mount.path != "/" and not mount.path.startswith(_BOOT_PATHS)
    }
    # Without another file system, the data is on the root.
    data_encrypted = _combine(list(data.values())) if data else (root.encrypted if root else None)
    section.set(root_encrypted=root.encrypted if root else None, data_encrypted=data_encrypted)
    if root is None:
        section.gap("root_encrypted", reason="the root is in memory or on another machine")
    for mount, status in statuses.items():
        if status.encrypted is None:
            # An unencrypted file system decides for all of them, whatever the others are.
            is_undecided = (mount in data or not data) and data_encrypted is None
            fields = [*(["root_encrypted"] if mount.path == "/" else []), *(["data_encrypted"] if is_undecided else [])]
            section.gap("mounts", *fields, reason=status.reason or "not determined", source=mount.path)
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
    section.set(mounts=mounts, fscrypt=sorted(mount.path for mount in mounted if _has_fscrypt(system, mount)))
    return section.build()


def _combine(answers: list[bool | None]) -> bool | None:
    """Returns False if any is False, else None if any is None, else True."""
    if False in answers:
        return False
    return None if None in answers else True


def _mounted(system: System) -> list[MountEntry]:
    tables = (system.path("/proc/self/mountinfo"), system.path("/proc/1/mountinfo"))
    path = next((table for table in tables if table.exists()), None)
    if path is None:
        raise FactsUnavailableError("the kernel's mount table is missing")
    mounts: dict[str, MountEntry] = {}
    by_device: dict[tuple[str, str], str] = {}
    for mount in parse_mounts(read_text(path, _MAX_BYTES)):
        # A file system mounted at several paths counts once: containers and chroots mount single files of it.
        first = by_device.setdefault((mount.numbers, mount.source), mount.path)
        if mount.path in {"/", first}:
            mounts[mount.path] = mount  # a later mount hides an earlier one
    return list(mounts.values())


def parse_mounts(text: str) -> list[MountEntry]:
    """Returns the file systems in `/proc/self/mountinfo` that are on a disk of this machine; skips malformed lines."""
    mounts = []
    for line in text.splitlines()[:_MAX_MOUNTS]:
        before, _, after = line.partition(" - ")
        fields, fs_fields = before.split(), after.split()
        if len(fields) < 6 or len(fs_fields) < 2 or fs_fields[0] not in _ON_DISK:
            continue
        if not _DEVICE_NUMBERS.match(fields[2]):
            continue
        options = {*fields[5].split(","), *(fs_fields[2].split(",") if len(fs_fields) > 2 else ())}
        path, source = _unescape(fields[4]), _unescape(fs_fields[1])
        mounts.append(MountEntry(path, fields[2], fs_fields[0], source, "ro" not in options))
    return mounts


def _unescape(text: str) -> str:
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _encryption_of(system: System, mount: MountEntry) -> EncryptionStatus:
    if mount.kind in _LAYERED:
        return EncryptionStatus(None, "", "the file system below an overlay is not visible from inside")
    if mount.kind == "ecryptfs":
        return EncryptionStatus(encrypted=True, method="ecryptfs")
    if mount.kind == "zfs":
        return EncryptionStatus(None, "", "encryption of ZFS is not read")
    if mount.kind in _FLASH:
        return EncryptionStatus(encrypted=False, method="flash")
    block = _block_name(system, mount.numbers, mount.source)
    if block is None:
        return EncryptionStatus(None, "", f"no block device is known for {mount.source}")
    return is_backed_by_dm_crypt(system, block)


def _block_name(system: System, numbers: str, source: str) -> str | None:
    """Returns the kernel's name of a block device: by its numbers, or by its path if the numbers are not a device's."""
    link = system.path(f"/sys/dev/block/{numbers}")
    if numbers and (link.exists() or link.is_symlink()):
        return Path(os.path.realpath(link)).name
    name = source.rpartition("/")[2]
    if name and system.path(f"/sys/class/block/{name}").exists():
        return name
    names = (file for file in _device_mapper_names(system) if read_text(file).strip() == name)
    return next((file.parent.parent.name for file in names), None)


def _device_mapper_names(system: System) -> list[Path]:
    return sorted(system.path("/sys/class/block").glob("dm-*/dm/name"))[:_MAX_DEVICES]


def is_backed_by_dm_crypt(system: System, block: str) -> EncryptionStatus:
    """Checks whether everything below a block device passes through dm-crypt."""
    budget = [_MAX_DEVICES]
    methods: set[str] = set()
    encrypted = _trace(system, block, 0, budget, methods)
    return EncryptionStatus(encrypted, "+".join(sorted(methods)), "" if encrypted is not None else "too many layers")


def _trace(system: System, block: str, depth: int, budget: list[int], methods: set[str]) -> bool | None:
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        return None
    folder = system.path(f"/sys/class/block/{block}")
    if match := _CRYPT_UUID.match(read_text(folder / "dm/uuid")):
        methods.add(match[1].lower())
        return True
    slaves = sorted(path.name for path in (folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
    backing = read_text(folder / "loop/backing_file").strip()
    if backing and not slaves:
        return None  # a loop device: its file is on another file system
    return _combine([_trace(system, slave, depth + 1, budget, methods) for slave in slaves]) if slaves else False


def _add_swaps(system: System, section: SectionBuilder) -> None:
    swaps = []
    with section.capture("swap", "swaps", source="/proc/swaps"):
        for line in read_text(system.path("/proc/swaps")).splitlines()[1:_MAX_MOUNTS]:
            fields = line.split()
            if len(fields) < 2:
                continue
            device = _unescape(fields[0])
            if device.rpartition("/")[2].startswith("zram"):
                status = EncryptionStatus(encrypted=None, method="memory")
            elif fields[1] == "file":
                status = _swap_file(system, device)
            elif block := _block_name(system, "", device):
                status = is_backed_by_dm_crypt(system, block)
            else:
                status = EncryptionStatus(None, "", "unknown device")
            swaps.append((device, status))
    rows = sorted(swaps, key=lambda item: item[0])
    section.set(
        swap=_swap_summary(swaps),
        swaps=[{"device": device, "encrypted": status.encrypted, "how": status.method} for device, status in rows],
    )


def _swap_file(system: System, path: str) -> EncryptionStatus:
    """Returns the encryption of the file system that holds a swap file."""
    mounts = [mount for mount in _mounted(system) if path.startswith(mount.path.rstrip("/") + "/")]
    innermost = max(mounts, key=lambda mount: len(mount.path), default=None)
    if innermost is None:
        return EncryptionStatus(None, "", "unknown file system")
    return _encryption_of(system, innermost)


def _swap_summary(swaps: list[tuple[str, EncryptionStatus]]) -> str:
    answers = [status.encrypted for _, status in swaps if status.method != "memory"]
    if not answers:
        return "none"
    return {True: "encrypted", False: "plain", None: "unknown"}[_combine(answers)]


def _has_fscrypt(system: System, mount: MountEntry) -> bool:
    try:
        return system.path(mount.path.rstrip("/") + "/.fscrypt").is_dir()
    except OSError:
        return False
