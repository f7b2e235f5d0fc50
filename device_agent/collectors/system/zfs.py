"""Encryption of ZFS: of the dataset itself, or of all devices below its pool."""

import shutil
from collections.abc import Callable
from typing import Final

from device_agent.collectors.system.block_devices import EncryptionStatus, combine
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

_NOT_ENCRYPTED: Final = frozenset({"off", "-"})
_STATES: Final = frozenset({"ONLINE", "DEGRADED", "FAULTED", "OFFLINE", "UNAVAIL", "REMOVED", "AVAIL", "INUSE"})


def zfs_status(system: System, dataset: str, device_of: Callable[[str], EncryptionStatus]) -> EncryptionStatus:
    """Asks `zfs` for a dataset's encryption; without it, every device of the pool has to be encrypted."""
    if not system.is_live:
        return EncryptionStatus(None, "", "encryption of ZFS can be read on the running system only")
    if not shutil.which("zfs") or not shutil.which("zpool"):
        return EncryptionStatus(None, "", "encryption of ZFS is not read without zfs and zpool")
    try:
        answer = run(["zfs", "get", "-H", "-o", "property,value", "encryption,keystatus", dataset]).stdout
        status = dataset_status(answer)
        if status.encrypted is not False:
            return status
        devices = pool_devices(run(["zpool", "status", "-LP", dataset.partition("/")[0]]).stdout)
    except ExecuteError as e:
        return EncryptionStatus(None, "", str(e))
    below = combine([device_of(device) for device in devices])
    return below if below.encrypted is not False else status


def dataset_status(text: str) -> EncryptionStatus:
    """Reads the output of `zfs get -H -o property,value encryption,keystatus`."""
    values = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    encryption, key = values.get("encryption", "").strip(), values.get("keystatus", "").strip()
    if encryption in _NOT_ENCRYPTED:
        return EncryptionStatus(encrypted=False, method="zfs")
    if not encryption or key not in {"available", "unavailable"}:
        return EncryptionStatus(None, "zfs", f"zfs answered encryption={encryption or '?'}, keystatus={key or '?'}")
    return EncryptionStatus(encrypted=True, method="zfs")


def pool_devices(text: str) -> list[str]:
    """Returns the paths of the devices and files in the output of `zpool status -LP`."""
    rows = (line.split() for line in text.splitlines())
    return [row[0] for row in rows if len(row) > 1 and row[0].startswith("/") and row[1] in _STATES]
