"""What lies encrypted on this device: every local file system and swap area, traced down to what it lies on."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import GapRecorder
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import text_of
from device_agent.host.system import System

_MAX_BYTES: Final = 4 * 1024 * 1024  # of the table of mounts
_MAX_MOUNTS: Final = 4096
_MAX_DEPTH: Final = 8  # layers of devices: a partition, RAID, LUKS, LVM
_MAX_LAYERS: Final = 256  # devices beneath one file system
_CRYPT: Final = re.compile(r"^CRYPT-(LUKS1|LUKS2|PLAIN|LOOPAES|TCRYPT|BITLK|FVAULT2)-")
# Kept in memory, made by the kernel, or on another machine: nothing of theirs lies on a disk of this one.
_ON_DISK: Final = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "nilfs2", "bcachefs", "zfs", "vfat", "exfat",
        "msdos", "ntfs", "ntfs3", "fuseblk", "ubifs", "jffs2", "yaffs2", "udf", "overlay", "overlayfs", "ecryptfs",
    }
)  # fmt: skip
_LAYERED: Final = frozenset({"overlay", "overlayfs"})
_FLASH: Final = frozenset({"ubifs", "jffs2", "yaffs2"})
_START: Final = ("/boot", "/efi")  # what firmware reads has to lie open
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_NUMBERS: Final = re.compile(r"^\d{1,6}:\d{1,9}$")


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
    """Whether something is encrypted, by what, and why not known."""

    encrypted: bool | None
    how: str = ""
    reason: str = ""


def collect(system: System) -> Section:
    """The `disk` section.

    Raises:
        FactsUnavailableError: the kernel's table of mounts is not there.
    """
    mounted = _mounted(system)
    gaps = GapRecorder()
    answers = {one: _answer(system, one) for one in mounted}
    for one, answer in answers.items():
        if answer.encrypted is None:
            gaps.add(one.path, answer.reason)
    swaps = _swaps(system, gaps)
    root = next((answer for one, answer in answers.items() if one.path == "/"), None)
    data = [
        answer.encrypted
        for one, answer in answers.items()
        if one.is_writable and one.path != "/" and not one.path.startswith(_START)
    ]
    if root is None:
        gaps.add("root_encrypted", "the root is in memory or on another machine")
    mounts = [
        {"path": one.path, "device": one.source, "kind": one.kind, "encrypted": answer.encrypted, "how": answer.how}
        for one, answer in sorted(answers.items(), key=lambda item: item[0].path)
    ]
    return {
        "state": "ok",
        "root_encrypted": root.encrypted if root else None,
        # Without any other file system data lies on the root.
        "data_encrypted": _all(data) if data else (root.encrypted if root else None),
        "swap": _swap_word(swaps),
        "mounts": mounts,
        "swaps": [{"device": device, "encrypted": one.encrypted, "how": one.how} for device, one in swaps],
        "fscrypt": sorted(one.path for one in mounted if _has_fscrypt(system, one)),
        "gaps": gaps.listed(),
    }


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def _mounted(system: System) -> list[MountEntry]:
    path = next(
        (path for place in ("/proc/self/mountinfo", "/proc/1/mountinfo") if (path := system.path(place)).exists()), None
    )
    if path is None:
        raise FactsUnavailableError("the kernel's table of mounts is not there")
    found: dict[str, MountEntry] = {}
    by_device: dict[tuple[str, str], str] = {}
    for one in parse_mounts(text_of(path, _MAX_BYTES)):
        # The same file system in several places counts once: containers and chroots see single files of it.
        first = by_device.setdefault((one.numbers, one.source), one.path)
        if one.path in {"/", first}:
            found[one.path] = one  # what was mounted over it later counts
    return list(found.values())


def parse_mounts(text: str) -> list[MountEntry]:
    """The file systems of `/proc/self/mountinfo` that lie on a disk of this machine; damaged lines are left out."""
    found = []
    for line in text.splitlines()[:_MAX_MOUNTS]:
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) < 6 or len(more) < 2 or more[0] not in _ON_DISK or not _NUMBERS.match(fields[2]):
            continue
        options = {*fields[5].split(","), *(more[2].split(",") if len(more) > 2 else ())}
        found.append(MountEntry(_plain(fields[4]), fields[2], more[0], _plain(more[1]), "ro" not in options))
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _answer(system: System, mounted: MountEntry) -> EncryptionStatus:
    if mounted.kind in _LAYERED:
        return EncryptionStatus(None, "", "what lies beneath an overlay is not visible from inside")
    if mounted.kind == "ecryptfs":
        return EncryptionStatus(encrypted=True, how="ecryptfs")
    if mounted.kind == "zfs":
        return EncryptionStatus(None, "", "ZFS keeps this to itself")
    if mounted.kind in _FLASH:
        return EncryptionStatus(encrypted=False, how="flash")
    block = _block(system, mounted.numbers, mounted.source)
    if block is None:
        return EncryptionStatus(None, "", f"nothing is known of {mounted.source}")
    return trace(system, block)


def _block(system: System, numbers: str, source: str) -> str | None:
    """The kernel's name of a block device: by its numbers, or by its path where the file system has made-up numbers."""
    link = system.path(f"/sys/dev/block/{numbers}")
    if numbers and (link.exists() or link.is_symlink()):
        return Path(os.path.realpath(link)).name
    name = source.rpartition("/")[2]
    if name and system.path(f"/sys/class/block/{name}").exists():
        return name
    return next((folder.parent.parent.name for folder in _mappers(system) if text_of(folder).strip() == name), None)


def _mappers(system: System) -> list[Path]:
    return sorted(system.path("/sys/class/block").glob("dm-*/dm/name"))[:_MAX_LAYERS]


def trace(system: System, block: str) -> EncryptionStatus:
    """Whether everything beneath a block device passes through dm-crypt."""
    budget = [_MAX_LAYERS]
    how: set[str] = set()
    is_encrypted = _trace(system, block, 0, budget, how)
    return EncryptionStatus(is_encrypted, "+".join(sorted(how)), "" if is_encrypted is not None else "too many layers")


def _trace(system: System, block: str, depth: int, budget: list[int], how: set[str]) -> bool | None:
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        return None
    folder = system.path(f"/sys/class/block/{block}")
    if match := _CRYPT.match(text_of(folder / "dm/uuid")):
        how.add(match[1].lower())
        return True
    slaves = sorted(path.name for path in (folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
    backing = text_of(folder / "loop/backing_file").strip()
    if backing and not slaves:
        return None  # a file, on a file system of its own
    return _all([_trace(system, slave, depth + 1, budget, how) for slave in slaves]) if slaves else False


def _swaps(system: System, gaps: GapRecorder) -> list[tuple[str, EncryptionStatus]]:
    found = []
    with gaps.told("swap"):
        for line in text_of(system.path("/proc/swaps")).splitlines()[1:_MAX_MOUNTS]:
            fields = line.split()
            if len(fields) < 2:
                continue
            device = _plain(fields[0])
            name = device.rpartition("/")[2]
            if name.startswith("zram"):
                found.append((device, EncryptionStatus(encrypted=None, how="memory")))
            elif fields[1] == "file":
                found.append((device, _of_file(system, device)))
            else:
                block = _block(system, "", device)
                found.append((device, trace(system, block) if block else EncryptionStatus(None, "", "unknown device")))
    return sorted(found, key=lambda item: item[0])


def _of_file(system: System, path: str) -> EncryptionStatus:
    """A swap file is as safe as the file system it lies on."""
    homes = [one for one in _mounted(system) if path.startswith(one.path.rstrip("/") + "/")]
    best = max(homes, key=lambda one: len(one.path), default=None)
    return _answer(system, best) if best is not None else EncryptionStatus(None, "", "unknown file system")


def _swap_word(swaps: list[tuple[str, EncryptionStatus]]) -> str:
    answers = [one.encrypted for _, one in swaps if one.how != "memory"]
    if not answers:
        return "none"
    return {True: "encrypted", False: "plain", None: "unknown"}[_all(answers)]


def _has_fscrypt(system: System, mounted: MountEntry) -> bool:
    try:
        return system.path(mounted.path.rstrip("/") + "/.fscrypt").is_dir()
    except OSError:
        return False
