"""Traces block devices to what is below them: partitions, RAID, LVM, multipath, bcache and loop devices to dm-crypt."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import read_text
from device_agent.host.system import System

_MAX_DEPTH: Final = 8  # layers of devices: partition, RAID, LUKS, LVM
_MAX_DEVICES: Final = 256  # below one file system
_CRYPT_UUID: Final = re.compile(r"^CRYPT-(LUKS1|LUKS2|PLAIN|LOOPAES|TCRYPT|BITLK|FVAULT2)-")
_FLASH_NAMES: Final = re.compile(r"^(?:mtdblock|ubiblock)\d")
_MTD_MAJOR: Final = "31:"
_NULL_CIPHERS: Final = ("cipher_null", "null")


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """Whether a file system or swap area is encrypted, by which method, and why that is unknown."""

    encrypted: bool | None
    method: str = ""
    reason: str = ""


def combine(statuses: list[EncryptionStatus]) -> EncryptionStatus:
    """Returns the status of what is spread over all of these: one that is not encrypted decides."""
    if not statuses:
        return EncryptionStatus(None, "", "no device is known")
    for answer in (False, None):
        if found := next((status for status in statuses if status.encrypted is answer), None):
            methods = {status.method for status in statuses if status.encrypted is answer and status.method}
            return EncryptionStatus(answer, "+".join(sorted(methods)), found.reason)
    return EncryptionStatus(encrypted=True, method="+".join(sorted({s.method for s in statuses if s.method})))


@dataclass(slots=True)
class BlockDevices:
    """The block devices of a machine.

    Args:
        system: the machine.
        holder_of: the status of the file system that holds a file, for loop devices.
        cipher_of: the cipher of a dm-crypt device by its name; None where nothing can be asked.
    """

    system: System
    holder_of: Callable[[str], EncryptionStatus]
    cipher_of: Callable[[str], str | None]
    _left: int = field(default=_MAX_DEVICES, init=False)

    def name_of(self, source: str, numbers: str = "") -> str | None:
        """Returns the kernel's name of a device: by its numbers, or by its path if the numbers are not a device's."""
        link = self.system.path(f"/sys/dev/block/{numbers}")
        if numbers and (link.exists() or link.is_symlink()):
            return Path(os.path.realpath(link)).name
        if numbers.startswith(_MTD_MAJOR):
            return f"mtdblock{numbers.partition(':')[2]}"
        name = source.rpartition("/")[2]
        if name and (_FLASH_NAMES.match(name) or self.system.path(f"/sys/class/block/{name}").exists()):
            return name
        names = sorted(self.system.path("/sys/class/block").glob("dm-*/dm/name"))
        return next((file.parent.parent.name for file in names if read_text(file).strip() == name), None)

    def status_of(self, source: str, numbers: str = "") -> EncryptionStatus:
        """Checks whether everything below a device passes through dm-crypt."""
        name = self.name_of(source, numbers)
        if name is None:
            return EncryptionStatus(None, "", f"no block device is known for {source}")
        return self.status_of_block(name)

    def status_of_block(self, name: str) -> EncryptionStatus:
        """Checks what is below a device by the kernel's name of it."""
        self._left = _MAX_DEVICES
        return self._trace(name, 0)

    def _trace(self, block: str, depth: int) -> EncryptionStatus:
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            return EncryptionStatus(None, "", "too many layers")
        if _FLASH_NAMES.match(block):
            return EncryptionStatus(encrypted=False, method="flash")
        folder = self.system.path(f"/sys/class/block/{block}")
        uuid = read_text(folder / "dm/uuid")
        if match := _CRYPT_UUID.match(uuid):
            return self._crypt(match[1].lower(), read_text(folder / "dm/name").strip() or block)
        if block.startswith("dm-") and not uuid and not (folder / "slaves").is_dir():
            return EncryptionStatus(None, "", f"what is below {block} is not visible")
        slaves = sorted(path.name for path in (folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
        if slaves:
            return combine([self._trace(slave, depth + 1) for slave in slaves])
        if backing := read_text(folder / "loop/backing_file").strip():
            return self.holder_of(backing)
        if (folder / "partition").exists():
            whole = Path(os.path.realpath(folder)).parent.name
            if whole != block and self.system.path(f"/sys/class/block/{whole}").exists():
                return self._trace(whole, depth + 1)
        return EncryptionStatus(encrypted=False)

    def _crypt(self, method: str, name: str) -> EncryptionStatus:
        cipher = self.cipher_of(name)
        if cipher is None:
            return EncryptionStatus(None, method, f"the cipher of {name} cannot be read")
        if cipher.startswith(_NULL_CIPHERS):
            return EncryptionStatus(encrypted=False, method="null cipher")
        return EncryptionStatus(encrypted=True, method=method)


def read_cipher(system: System, name: str) -> str | None:
    """Asks device-mapper for a cipher; empty for a prepared root, whose device-mapper does not run here."""
    if not system.is_live:
        return ""
    if not system.is_root_user:
        return None
    try:
        if shutil.which("dmsetup"):
            return cipher_in_table(run(["dmsetup", "table", "--", name]).stdout)
        if shutil.which("cryptsetup"):
            return cipher_in_status(run(["cryptsetup", "status", "--", name]).stdout)
    except ExecuteError:
        pass
    return None


def cipher_in_table(text: str) -> str | None:
    """Returns the cipher in the output of `dmsetup table` (`0 4096 crypt aes-xts-plain64 ...`)."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not rows or any(len(row) < 4 or row[2] != "crypt" for row in rows):
        return None  # another target, such as the drive's own encryption
    ciphers = [row[3] for row in rows]
    return next((cipher for cipher in ciphers if cipher.startswith(_NULL_CIPHERS)), ciphers[0])


def cipher_in_status(text: str) -> str | None:
    """Returns the cipher in the output of `cryptsetup status`."""
    match = re.search(r"^[ \t]*cipher:[ \t]*(\S+)", text, re.MULTILINE)
    return match[1] if match else None
