"""Private keys in the configured folders (section `keys`): type, size, passphrase, age, and who may read them."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import MAX_AGE_DAYS, Section, SectionBuilder, days_between
from device_agent.collectors.crypto.crypto_files import CryptoFile, files_below
from device_agent.collectors.crypto.key_asn1 import KeyFormat
from device_agent.collectors.crypto.key_format import read_keys
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.files import read_text
from device_agent.host.reading import NEEDS_ROOT, GapRecorder
from device_agent.host.system import System

DEFAULT_FOLDERS: Final = ("/etc/ssl/private", "/etc/pki/tls/private", "/etc/cordon")


class KeyCollector:
    """Collects the `keys` section.

    Args:
        paths: files and folders; without any the existing default folders.
        own: the agent's own key.
        clock: returns Unix time.
    """

    def __init__(
        self, paths: Sequence[Path] = (), own: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._paths = tuple(str(path) for path in paths)
        self._own = (str(own.absolute()),) if own else ()
        self._clock = clock

    def __call__(self, system: System) -> Section:
        """Returns the section; unreadable files are gaps."""
        folders = self._paths or tuple(folder for folder in DEFAULT_FOLDERS if system.path(folder).is_dir())
        roots = [*folders, *self._own]
        if not roots:
            raise NotApplicableError(f"no folder of keys: none of {', '.join(DEFAULT_FOLDERS)}")
        gaps = GapRecorder()
        names = _AccountNames(system)
        now = self._clock()
        entries = []
        for file in files_below(system, roots, gaps):
            found = read_keys(file.data)
            for gap in found.gaps:
                gaps.add(gap.reason, file.name)
            entries += [_entry(system, file, key, names, now) for key in found.value]
        if not entries and gaps.gaps and all(gap.reason == NEEDS_ROOT for gap in gaps.gaps):
            raise FactsUnavailableError(NEEDS_ROOT)
        entries.sort(key=lambda entry: str(entry["path"]))
        section = SectionBuilder(folders=sorted(roots), entries=entries)
        section.add_gaps(gaps.gaps, "entries")
        return section.build()


class _AccountNames:
    """Names of users and groups by number, from the scanned system's own account files."""

    def __init__(self, system: System) -> None:
        self._users, self._groups = (_names_by_id(_readable(system, path)) for path in ("/etc/passwd", "/etc/group"))

    def user(self, number: int) -> str:
        return self._users.get(number, str(number))

    def group(self, number: int) -> str:
        return self._groups.get(number, str(number))


def _readable(system: System, path: str) -> str:
    try:
        return read_text(system.path(path))
    except (OSError, FactsUnavailableError):
        return ""  # numbers are reported instead


def _names_by_id(text: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for fields in (line.split(":") for line in text.splitlines()):
        if len(fields) > 2 and fields[0] and fields[2].isdecimal() and len(fields[2]) < 11:
            names.setdefault(int(fields[2]), fields[0])
    return names


def _entry(system: System, file: CryptoFile, key: KeyFormat, names: _AccountNames, now: float) -> dict[str, Any]:
    state = file.state
    folder = file.path.resolve().parent.stat()
    readable, replaceable = _extra_access(system, file, folder)
    return {
        "path": file.name,
        "format": key.format,
        "kind": key.kind,
        "bits": key.bits,
        "protected": key.protected,
        "age_days": min(max(0, days_between(state.st_mtime, now)), MAX_AGE_DAYS),
        "owner": names.user(state.st_uid),
        "group": names.group(state.st_gid),
        "mode": f"{stat.S_IMODE(state.st_mode):04o}",
        "folder_owner": names.user(folder.st_uid),
        "folder_group": names.group(folder.st_gid),
        "folder_mode": f"{stat.S_IMODE(folder.st_mode):04o}",
        "readable_by": readable,
        "replaceable_by": replaceable,
    }


def _extra_access(system: System, file: CryptoFile, folder: os.stat_result) -> tuple[list[str], list[str]]:
    """Returns who else than the owner may read and may replace the file, by its mode and that of all its folders."""
    mode, group = file.state.st_mode, file.state.st_gid
    parents = [parent.stat() for parent in file.path.resolve().parents if _is_inside_root(system, parent)]
    reach = {
        "others": all(parent.st_mode & stat.S_IXOTH for parent in parents),
        "group": all(
            parent.st_mode & (stat.S_IXGRP if parent.st_gid == group else stat.S_IXOTH) or parent.st_mode & stat.S_IXOTH
            for parent in parents
        ),
    }
    is_sticky = bool(folder.st_mode & stat.S_ISVTX)
    replaces = {
        "others": mode & stat.S_IWOTH or (folder.st_mode & stat.S_IWOTH and not is_sticky),
        "group": mode & stat.S_IWGRP or (folder.st_mode & stat.S_IWGRP and not is_sticky),
    }
    reads = {"others": mode & stat.S_IROTH, "group": mode & stat.S_IRGRP}
    return (
        [subject for subject in ("group", "others") if reach[subject] and reads[subject]],
        [subject for subject in ("group", "others") if reach[subject] and replaces[subject]],
    )


def _is_inside_root(system: System, folder: Path) -> bool:
    # The folders above a prepared root do not belong to the scanned system.
    if system.is_image and folder == system.root:
        return False  # its mode is of the examining machine, such as 0700 of a folder for backups
    return system.is_live or folder.is_relative_to(system.root.resolve())
