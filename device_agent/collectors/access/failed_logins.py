"""Failed logins of the last day by source, from btmp, the logs and the journal, rounded down to 10, 100, ..."""

import calendar
import contextlib
import platform
import re
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from device_agent.collectors.base import round_to_magnitude
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import read_tail
from device_agent.host.login_records import (
    RECORD,
    WIDE_MACHINES,
    WIDE_RECORD,
    add_failure,
    count_lines,
    source_of,
)
from device_agent.host.reading import error_reason
from device_agent.host.system import System
from schemas.safe_files import open_for_reading

WINDOW_SECONDS: Final = 24 * 3600.0
MIN_FAILURES: Final = 10  # of one source; fewer are typing errors
_BTMP: Final = "/var/log/btmp"
_LOGS: Final = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
_MAX_BYTES: Final = 1024 * 1024  # from the end of each file
_MAX_JOURNAL_LINES: Final = 5000
_JOURNAL_SECONDS: Final = 15.0
_ISO_TIME: Final = re.compile(r"^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?")
# Also with the day of the week and the year, as OpenWrt's logd writes it.
_SYSLOG_TIME: Final = re.compile(r"^(?:[A-Z][a-z]{2} )?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4} )?")
_EPOCH: Final = re.compile(r"^(\d{10})(?:\.\d+)? ")
_PRIORITY: Final = re.compile(r"^<\d{1,3}>(?:1 )?")  # of RFC 3164 and 5424
_MONTHS: Final = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_SECONDS_FIELD: Final = 9  # of either record


def collect(system: System, now: float) -> list[dict[str, Any]]:
    """Returns the sources with at least `MIN_FAILURES` failures within the window, the most failures first.

    Args:
        system: the machine to scan.
        now: Unix time.

    Raises:
        FactsUnavailableError: there is no record of failed logins, none can be read, or this is an image.
    """
    system.require_living("logins of the last day")
    readers: list[Callable[[], Counter[str] | None]] = [
        lambda: _btmp(system, now),
        lambda: _logs(system, now),
        lambda: _journal(system),
    ]
    counts, reasons = [], []
    for read in readers:
        try:
            count = read()
        except (OSError, ExecuteError) as e:
            reasons.append(error_reason(e))
        else:
            counts += [count] if count is not None else []
    if not counts:
        raise FactsUnavailableError(reasons[0] if reasons else "there is no btmp, auth log or journal")
    # The records overlap: the same failure may be in several of them.
    total = {source: max(count[source] for count in counts) for count in counts for source in count}
    frequent = sorted(
        (-round_to_magnitude(number), source) for source, number in total.items() if number >= MIN_FAILURES
    )
    return [{"source": source, "at_least": -number} for number, source in frequent]


def _btmp(system: System, now: float) -> Counter[str] | None:
    path = system.path(_BTMP)
    if not path.exists():
        return None
    record = WIDE_RECORD if platform.machine() in WIDE_MACHINES else RECORD
    with open_for_reading(path) as file:
        size = file.seek(0, 2)
        length = min(size, _MAX_BYTES) // record.size * record.size
        file.seek(max(0, size // record.size * record.size - length))
        return count_records(file.read(length), record, now)


def count_records(content: bytes, record: struct.Struct, now: float) -> Counter[str]:
    """Counts the failures within the window by source in the records of btmp."""
    counts: Counter[str] = Counter()
    complete = len(content) // record.size * record.size
    for fields in record.iter_unpack(content[:complete]):
        if now - WINDOW_SECONDS <= fields[_SECONDS_FIELD] <= now:
            add_failure(counts, source_of(fields))
    return counts


def _logs(system: System, now: float) -> Counter[str] | None:
    paths = [path for log in _LOGS if (path := system.path(log)).is_file()]
    if not paths:
        return None
    counts: Counter[str] = Counter()
    for path in paths:
        lines = read_tail(path, _MAX_BYTES).splitlines()
        for source, count in count_lines(line for line in lines if _is_recent(line, now)).items():
            counts[source] = max(counts[source], count)
        if not counts and count_lines(line for line in lines if time_of(line, now) is None):
            raise FactsUnavailableError(f"the time of failed logins is not understood ({path.name})")
    return counts


def _is_recent(line: str, now: float) -> bool:
    at = time_of(line, now)
    return at is not None and now - WINDOW_SECONDS <= at <= now + 3600


def _journal(system: System) -> Counter[str] | None:
    if not system.is_live or not shutil.which("journalctl"):
        return None
    if not any(system.path(f"{parent}/log/journal").is_dir() for parent in ("/run", "/var")):
        return None
    if not system.is_root_user:
        raise ExecuteError("needs root")
    # Everybody may write under any identifier, so that they could accuse others or displace what counts.
    wanted = ("_UID=0", *(f"SYSLOG_IDENTIFIER={name}" for name in ("sshd", "sshd-session", "dropbear", "login")))
    argv = ["journalctl", "-q", "--no-pager", "-o", "short", "--since=-24h", f"-n{_MAX_JOURNAL_LINES}", *wanted]
    return count_lines(run(argv, seconds=_JOURNAL_SECONDS).stdout.splitlines())


def time_of(line: str, now: float) -> float | None:
    """Returns the Unix time at the start of a log line; without a year, the latest that is not in the future."""
    with contextlib.suppress(ValueError, OverflowError):
        line = line[match.end() :] if (match := _PRIORITY.match(line)) else line
        if match := _EPOCH.match(line):
            return float(match[1])
        if match := _ISO_TIME.match(line):
            parts = [int(part) for part in match.groups()[:6]]
            zone = match[7]
            if zone is None:
                return time.mktime((*parts, 0, 0, -1))  # type: ignore[arg-type] # six numbers and three more
            shift = 0 if zone == "Z" else int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
            return calendar.timegm((*parts, 0, 0, 0)) - (-shift if zone[0] == "-" else shift)
        if match := _SYSLOG_TIME.match(line):
            month = _MONTHS.get(match[1], 0)
            if not month:
                return None
            day, hour, minute, second = (int(part) for part in match.groups()[1:5])
            if match[6]:
                return time.mktime((int(match[6]), month, day, hour, minute, second, 0, 0, -1))
            year = time.localtime(now).tm_year
            at = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            return at if at <= now + 24 * 3600 else time.mktime((year - 1, month, day, hour, minute, second, 0, 0, -1))
    return None
