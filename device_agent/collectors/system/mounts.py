"""The kernel's mount table, `/proc/self/mountinfo`: what is mounted where, and what kind of file system it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_text
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

_TABLES: Final = ("/proc/self/mountinfo", "/proc/1/mountinfo")
_MAX_BYTES: Final = 4 * 1024 * 1024  # of mountinfo
_MAX_MOUNTS: Final = 4096
_FIELDS: Final = 6  # before the separator: id, parent, device numbers, root, mount point, options
_OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_DEVICE_NUMBERS: Final = re.compile(r"^\d{1,6}:\d{1,9}$")
MEMORY: Final = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs"})
NETWORK: Final = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "ceph", "afs", "coda", "9p", "virtiofs", "vboxsf", "lustre",
        "beegfs", "gpfs", "orangefs", "hostfs", "vmhgfs", "prl_fs",
    }
)  # fmt: skip
# Without files of their own on a disk: of the kernel, or views of files that another file system has.
_VIRTUAL: Final = frozenset(
    {
        "proc", "sysfs", "cgroup", "cgroup2", "cpuset", "devpts", "securityfs", "debugfs", "tracefs", "configfs", "bpf",
        "pstore", "efivarfs", "mqueue", "hugetlbfs", "autofs", "fusectl", "binfmt_misc", "rpc_pipefs", "nsfs", "nfsd",
        "selinuxfs", "smackfs", "functionfs", "gadgetfs", "resctrl", "binder", "binderfs", "xenfs", "spufs", "dax",
        "usbfs", "usbdevfs", "ocfs2_dlmfs", "dlmfs", "openpromfs", "pvfs2", "shiftfs", "none",
    }
)  # fmt: skip
_ON_DISK: Final = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "nilfs2", "bcachefs", "zfs", "vfat", "exfat",
        "msdos", "ntfs", "ntfs3", "fuseblk", "ubifs", "jffs2", "yaffs", "yaffs2", "udf", "overlay", "overlayfs", "aufs",
        "ecryptfs", "squashfs", "erofs", "cramfs", "romfs", "iso9660", "hfs", "hfsplus", "apfs", "minix", "ufs", "gfs2",
        "ocfs2", "zonefs", "logfs",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of mountinfo; `options` are those of the file system, unescaped."""

    path: str
    numbers: str
    kind: str
    source: str
    is_writable: bool
    options: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether its files are on a disk of this machine; also true of a kind that is not known."""
        if self.kind in _ON_DISK:
            return True
        if self.kind in MEMORY | NETWORK | _VIRTUAL:
            return False
        # The program behind a FUSE file system keeps its files in another one, or on the device that it names.
        return not self.kind.startswith("fuse") or self.source.startswith("/dev/")

    @property
    def is_known(self) -> bool:
        """Whether the kind is known to keep its files on a block device or flash memory, or the device is named."""
        return self.kind in _ON_DISK or self.source.startswith("/dev/") or not self.numbers.startswith("0:")

    def values(self, name: str) -> list[str]:
        """Returns the values of an option of the file system."""
        return [value for key, equals, value in (one.partition("=") for one in self.options) if equals and key == name]


def read_mounts(system: System) -> Reading[list[MountEntry]]:
    """Returns every mount, in the order of mounting; malformed lines are gaps.

    Raises:
        FactsUnavailableError: the kernel's mount table is missing or too large.
        OSError: it cannot be read.
    """
    path = next((path for path in _TABLES if system.path(path).exists()), None)
    if path is None:
        raise FactsUnavailableError("the kernel's mount table is missing")
    gaps = GapRecorder()
    return gaps.complete(parse_mounts(read_text(system.path(path), _MAX_BYTES), gaps, path))


def parse_mounts(text: str, gaps: GapRecorder, source: str = "") -> list[MountEntry]:
    """Returns the mounts in the text of mountinfo."""
    mounts: list[MountEntry] = []
    for number, line in enumerate(text.splitlines(), start=1):
        before, separator, after = line.partition(" - ")
        fields, fs_fields = before.split(" "), after.split(" ")
        is_understood = separator and len(fields) >= _FIELDS and len(fs_fields) >= 2 and fields[4].startswith("/")
        if not is_understood or not _DEVICE_NUMBERS.match(fields[2]):
            if line.strip():
                gaps.add("not understood", f"{source}:{number}")
            continue
        if len(mounts) >= _MAX_MOUNTS:
            gaps.add(f"only the first {_MAX_MOUNTS} mounts were read", source)
            break
        own = fs_fields[2].split(",") if len(fs_fields) > 2 else []
        is_writable = "ro" not in {*fields[5].split(","), *own}
        options = tuple(unescape(one) for one in own)
        mounts.append(
            MountEntry(unescape(fields[4]), fields[2], fs_fields[0], unescape(fs_fields[1]), is_writable, options)
        )
    return mounts


def unescape(text: str) -> str:
    """Replaces the octal escapes of the kernel's tables."""
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or in it, by whole components."""
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def mount_of(path: str, mounts: Sequence[MountEntry]) -> MountEntry | None:
    """Returns the mount that holds a path: the innermost, of several at one place the last."""
    holding = [
        (len(PurePosixPath(mount.path).parts), at) for at, mount in enumerate(mounts) if is_below(path, mount.path)
    ]
    return mounts[max(holding)[1]] if holding else None
