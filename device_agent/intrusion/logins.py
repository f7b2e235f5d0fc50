"""Failed logins as they happen, counted by source: what sshd and dropbear log, or else what is in btmp."""

import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

from device_agent.host.intrusion_monitors import AlertSource
from device_agent.host.login_records import RECORD, WIDE_MACHINES, WIDE_RECORD, count_lines, source_of
from device_agent.host.system import System
from device_agent.intrusion.alerts import IntrusionAlert
from device_agent.intrusion.follow import FilePosition
from device_agent.intrusion.tally import LOGIN

MAX_SOURCES: Final = 1024  # counted at the same time; further ones are one source
MAX_RECORDS: Final = 4096  # of btmp in one look
_OTHERS: Final = "others"
_LOGS: Final = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
_BTMP: Final = "/var/log/btmp"


def logs(system: System) -> tuple[AlertSource, ...]:
    """The log that tells of failed logins; none where only btmp does."""
    return tuple(AlertSource(LOGIN, path) for path in _LOGS if system.path(path).is_file())[:1]


def alert_of(source: str) -> IntrusionAlert:
    """Failed logins of one source, as the tally takes them."""
    return IntrusionAlert(LOGIN, source, "medium", "logins that failed", source)


def failed_in(line: bytes) -> str:
    """Where the failed login came from that a line tells of; empty when it tells of none."""
    return next(iter(count_lines([line.decode(errors="replace")])), "")


@dataclass(slots=True)
class _Count:
    since: float
    failures: int
    told: bool = False


class FailedLoginCounter:
    """Tells typing mistakes from guessing: a source counts once it failed often enough within the window.

    Args:
        enough: failures.
        window: seconds, from the first of them.
    """

    def __init__(self, enough: int, window: float) -> None:
        self._enough = enough
        self._window = window
        self._counts: dict[str, _Count] = {}

    def failed(self, source: str, now: float) -> tuple[str, int]:
        """One more failure; the source that it counts for, and how many are news (0: not enough yet)."""
        if source not in self._counts and len(self._counts) >= MAX_SOURCES:
            self._counts = {name: one for name, one in self._counts.items() if now <= one.since + self._window}
            if len(self._counts) >= MAX_SOURCES:
                source = _OTHERS
        count = self._counts.get(source)
        if count is None or now > count.since + self._window:
            count = self._counts[source] = _Count(now, 0)
        count.failures += 1
        if count.told:
            return source, 1
        if count.failures < self._enough:
            return source, 0
        count.told = True
        return source, count.failures


class BtmpReader:
    """The records that were added to btmp since the last look; `place` is what to remember."""

    source: Final = AlertSource(LOGIN, _BTMP)

    def __init__(self, system: System, place: FilePosition | None) -> None:
        """Without a place it is read from its end as it is now."""
        self._path = system.path(_BTMP)
        self._record = WIDE_RECORD if platform.machine() in WIDE_MACHINES else RECORD
        self.place = place

    def read(self) -> list[str]:
        """Where the failed logins came from.

        Raises:
            OSError: it cannot be read (one that is not there is no error).
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self.place = self.place or FilePosition(0, 0)
            return []
        with file:
            status = os.fstat(file.fileno())
            if self.place is None:
                self.place = FilePosition(status.st_ino, status.st_size)
            start = self.place.offset
            if self.place.inode != status.st_ino or status.st_size < start:
                start = 0  # it was rotated
            file.seek(start)
            content = file.read(MAX_RECORDS * self._record.size)
        whole = len(content) // self._record.size * self._record.size
        self.place = FilePosition(status.st_ino, start + whole)
        return _sources(content[:whole], self._record)


def _sources(content: bytes, record: struct.Struct) -> list[str]:
    return [source_of(fields) for fields in record.iter_unpack(content)]
