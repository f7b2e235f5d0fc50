"""Private keys in the folders that the device was told to look at: kind, size, passphrase, age, who may read them."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.crypto.crypto_files import CryptoFile, files_below
from device_agent.collectors.crypto.key_format import KeyFormat, key_format
from device_agent.collectors.reading import GapRecorder
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.files import text_of
from device_agent.host.system import System

USUAL_FOLDERS: Final = ("/etc/ssl/private", "/etc/pki/tls/private", "/etc/cordon")
_DAY: Final = 86_400
_MAX_PROBLEMS: Final = 16


def days_between(earlier: float, later: float) -> int:
    """Whole days by the calendar (UTC), so that every age changes at midnight and the digest once a day at most."""
    return int(later // _DAY) - int(earlier // _DAY)


class KeyCollector:
    """Finds the `keys` section.

    Args:
        paths: files and folders; without any the usual ones that are there.
        own: the agent's own key, wherever it lies.
        clock: seconds since the epoch.
    """

    def __init__(
        self, paths: Sequence[Path] = (), own: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._paths = tuple(str(path) for path in paths)
        self._own = (str(own.absolute()),) if own else ()
        self._clock = clock

    def __call__(self, system: System) -> Section:
        """The `keys` section; files closed to us are named in `problems`."""
        folders = self._paths or tuple(place for place in USUAL_FOLDERS if system.path(place).is_dir())
        places = [*folders, *self._own]
        if not places:
            raise NotApplicableError(f"no folder of keys: none of {', '.join(USUAL_FOLDERS)}")
        gaps = GapRecorder()
        names = _Names(system)
        now = self._clock()
        entries = []
        for found in files_below(system, places, gaps):
            known = key_format(found.data)
            if known is not None:
                entries.append(_entry(system, found, known, names, now))
        problems = gaps.listed()
        if not entries and problems and all(text.endswith(": needs root") for text in problems):
            raise FactsUnavailableError("needs root")
        entries.sort(key=lambda entry: str(entry["path"]))
        return {"state": "ok", "folders": sorted(places), "entries": entries, "problems": problems[:_MAX_PROBLEMS]}


class _Names:
    """Owners by the account files of the system that is looked at; a number where it has no name."""

    def __init__(self, system: System) -> None:
        self._users, self._groups = (_ids(_readable(system, place)) for place in ("/etc/passwd", "/etc/group"))

    def user(self, number: int) -> str:
        return self._users.get(number, str(number))

    def group(self, number: int) -> str:
        return self._groups.get(number, str(number))


def _readable(system: System, place: str) -> str:
    try:
        return text_of(system.path(place))
    except OSError:
        return ""  # numbers will have to do


def _ids(text: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for fields in (line.split(":") for line in text.splitlines()):
        if len(fields) > 2 and fields[0] and fields[2].isdecimal() and len(fields[2]) < 11:
            found.setdefault(int(fields[2]), fields[0])
    return found


def _entry(system: System, found: CryptoFile, known: KeyFormat, names: _Names, now: float) -> dict[str, Any]:
    state = found.state
    folder = os.stat(found.path.resolve().parent)  # noqa: PTH116 - one call, and the path is already there
    readable, replaceable = _open_to(system, found, folder)
    return {
        "path": found.name,
        "format": known.format,
        "kind": known.kind,
        "bits": known.bits,
        "protected": known.protected,
        "age_days": min(max(0, days_between(state.st_mtime, now)), 36_500),
        "owner": names.user(state.st_uid),
        "group": names.group(state.st_gid),
        "mode": f"{stat.S_IMODE(state.st_mode):04o}",
        "folder_owner": names.user(folder.st_uid),
        "folder_group": names.group(folder.st_gid),
        "folder_mode": f"{stat.S_IMODE(folder.st_mode):04o}",
        "readable_by": readable,
        "replaceable_by": replaceable,
    }


def _open_to(system: System, found: CryptoFile, folder: os.stat_result) -> tuple[list[str], list[str]]:
    """Who beside the owner may read, and who may replace: by the modes of the file and of every folder above it."""
    mode, group = found.state.st_mode, found.state.st_gid
    above = [place.stat() for place in found.path.resolve().parents if _is_within(system, place)]
    reach = {
        "others": all(place.st_mode & stat.S_IXOTH for place in above),
        "group": all(
            place.st_mode & (stat.S_IXGRP if place.st_gid == group else stat.S_IXOTH) or place.st_mode & stat.S_IXOTH
            for place in above
        ),
    }
    is_sticky = bool(folder.st_mode & stat.S_ISVTX)
    replaces = {
        "others": mode & stat.S_IWOTH or (folder.st_mode & stat.S_IWOTH and not is_sticky),
        "group": mode & stat.S_IWGRP or (folder.st_mode & stat.S_IWGRP and not is_sticky),
    }
    reads = {"others": mode & stat.S_IROTH, "group": mode & stat.S_IRGRP}
    return (
        [who for who in ("group", "others") if reach[who] and reads[who]],
        [who for who in ("group", "others") if reach[who] and replaces[who]],
    )


def _is_within(system: System, place: Path) -> bool:
    # What lies above a prepared folder is no part of the system in it.
    return system.is_live or place.is_relative_to(system.root.resolve())
