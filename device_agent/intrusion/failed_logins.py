"""Counts failed logins by source as they happen, from the log of sshd and dropbear or else from btmp."""

import os
import platform
from dataclasses import dataclass
from typing import Final

from device_agent.host.intrusion_monitors import AlertSource
from device_agent.host.login_records import RECORD, WIDE_MACHINES, WIDE_RECORD, count_lines, source_of
from device_agent.host.system import System
from device_agent.intrusion.aggregator import LOGIN
from device_agent.intrusion.alerts import IntrusionAlert
from device_agent.intrusion.log_follower import FilePosition
from schemas.safe_files import open_for_reading

MAX_SOURCES: Final = 1024  # counted at the same time; further sources are counted as one
MAX_RECORDS: Final = 4096  # of btmp in one read
_OTHERS: Final = "others"
_LOGS: Final = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
_BTMP: Final = "/var/log/btmp"


def auth_log_source(system: System) -> AlertSource | None:
    """Returns the log that records failed logins; None where only btmp does."""
    return next((AlertSource(LOGIN, path) for path in _LOGS if system.path(path).is_file()), None)


def failed_login_alert(source: str) -> IntrusionAlert:
    """Returns the alert for failed logins of a source."""
    return IntrusionAlert(LOGIN, source, "medium", "failed logins", source)


def parse_failed_logins(line: bytes) -> list[str]:
    """Returns the source of each failed login that a log line records, several where syslog folded equal lines."""
    return list(count_lines([line.decode(errors="replace")]).elements())


@dataclass(slots=True)
class _Count:
    since: float
    failures: int
    reported: bool = False


class FailedLoginCounter:
    """Separates password guessing from typing errors: a source is reported once it reaches the limit.

    Args:
        limit: failures within the window.
        window: seconds from the first failure.
    """

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._counts: dict[str, _Count] = {}

    def add_failure(self, source: str, now: float) -> tuple[str, int]:
        """Counts a failure; returns the source it is counted for and the failures to report (0 below the limit)."""
        if source not in self._counts and len(self._counts) >= MAX_SOURCES:
            self._counts = {name: count for name, count in self._counts.items() if now <= count.since + self._window}
            if len(self._counts) >= MAX_SOURCES:
                source = _OTHERS
        count = self._counts.get(source)
        if count is None or now > count.since + self._window:
            count = self._counts[source] = _Count(now, 0)
        count.failures += 1
        if count.reported:
            return source, 1
        if count.failures < self._limit:
            return source, 0
        count.reported = True
        return source, count.failures


class BtmpReader:
    """Reads the records added to btmp; a new reader continues from the saved `position` of an earlier one."""

    source: Final = AlertSource(LOGIN, _BTMP)

    def __init__(self, system: System, position: FilePosition | None) -> None:
        """Without a position, reading starts at the current end of btmp."""
        self._path = system.path(_BTMP)
        self._record = WIDE_RECORD if platform.machine() in WIDE_MACHINES else RECORD
        self.position = position

    def read(self) -> list[str]:
        """Returns the sources of the new failed logins.

        Raises:
            OSError: btmp cannot be read (if it does not exist, that is no error).
        """
        try:
            file = open_for_reading(self._path)
        except FileNotFoundError:
            self.position = self.position or FilePosition(0, 0)
            return []
        with file:
            status = os.fstat(file.fileno())
            if self.position is None:
                self.position = FilePosition(status.st_ino, status.st_size)
            start = self.position.offset
            if self.position.inode != status.st_ino or status.st_size < start:
                start = 0  # btmp was rotated
            file.seek(start)
            content = file.read(MAX_RECORDS * self._record.size)
        complete = len(content) // self._record.size * self._record.size
        self.position = FilePosition(status.st_ino, start + complete)
        return [source_of(fields) for fields in self._record.iter_unpack(content[:complete])]
