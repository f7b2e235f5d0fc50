"""Failed logins by source, from btmp, the logs and the journal; counted coarsely, so that quiet days look alike."""

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

from device_agent.collectors.base import error_reason, round_to_magnitude
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import tail_of
from device_agent.host.login_records import (
    RECORD,
    WIDE_MACHINES,
    WIDE_RECORD,
    add_failure,
    count_lines,
    source_of,
)
from device_agent.host.system import System

WINDOW_SECONDS: Final = 24 * 3600.0
LEAST: Final = 10  # failures of one source; fewer are somebody's typing
_BTMP: Final = "/var/log/btmp"
_LOGS: Final = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
_MAX_BYTES: Final = 1024 * 1024  # of each file, from its end
_MAX_JOURNAL_LINES: Final = 5000
_JOURNAL_SECONDS: Final = 15.0
_ISO: Final = re.compile(r"^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?")
_OLD: Final = re.compile(r"^([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) ")
_MONTHS: Final = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_SECONDS_AT: Final = 9  # its field in either record


def collect(system: System, now: float) -> list[dict[str, Any]]:
    """The sources with at least `LEAST` failures within the window, the worst first.

    Args:
        system: where to look.
        now: Unix time in seconds.

    Raises:
        FactsUnavailableError: nothing that records failed logins is there, or none of it can be read.
    """
    readers: list[Callable[[], Counter[str] | None]] = [
        lambda: _btmp(system, now),
        lambda: _logs(system, now),
        lambda: _journal(system),
    ]
    counts, reasons = [], []
    for read in readers:
        try:
            one = read()
        except (OSError, ExecuteError) as e:
            reasons.append(error_reason(e))
        else:
            counts += [one] if one is not None else []
    if not counts:
        raise FactsUnavailableError(reasons[0] if reasons else "no btmp, auth log or journal here")
    # The same failure may stand in several of them.
    total = {source: max(count[source] for count in counts) for count in counts for source in count}
    worst = sorted((-round_to_magnitude(number), source) for source, number in total.items() if number >= LEAST)
    return [{"source": source, "at_least": -number} for number, source in worst]


def _btmp(system: System, now: float) -> Counter[str] | None:
    path = system.path(_BTMP)
    if not path.exists():
        return None
    record = WIDE_RECORD if platform.machine() in WIDE_MACHINES else RECORD
    with path.open("rb") as file:
        size = file.seek(0, 2)
        keep = min(size, _MAX_BYTES) // record.size * record.size
        file.seek(max(0, size // record.size * record.size - keep))
        return count_records(file.read(keep), record, now)


def count_records(content: bytes, record: struct.Struct, now: float) -> Counter[str]:
    """Failures by source in records of btmp; what is not a time of the window does not count."""
    found: Counter[str] = Counter()
    whole = len(content) // record.size * record.size
    for fields in record.iter_unpack(content[:whole]):
        if now - WINDOW_SECONDS <= fields[_SECONDS_AT] <= now:
            add_failure(found, source_of(fields))
    return found


def _logs(system: System, now: float) -> Counter[str] | None:
    places = [path for place in _LOGS if (path := system.path(place)).is_file()]
    if not places:
        return None
    found: Counter[str] = Counter()
    for path in places:
        lines = tail_of(path, _MAX_BYTES).splitlines()
        for source, count in count_lines(line for line in lines if _is_recent(line, now)).items():
            found[source] = max(found[source], count)
    return found


def _is_recent(line: str, now: float) -> bool:
    at = time_of(line, now)
    return at is not None and now - WINDOW_SECONDS <= at <= now + 3600


def _journal(system: System) -> Counter[str] | None:
    if not system.is_live or not shutil.which("journalctl"):
        return None
    if not any(system.path(f"{place}/log/journal").is_dir() for place in ("/run", "/var")):
        return None
    if not system.is_root_user:
        raise ExecuteError("needs root")
    names = ("-t", "sshd", "-t", "sshd-session", "-t", "dropbear", "-t", "login")
    argv = ["journalctl", "-q", "--no-pager", "-o", "cat", "--since=-24h", f"-n{_MAX_JOURNAL_LINES}", *names]
    return count_lines(run(argv, seconds=_JOURNAL_SECONDS).out.splitlines())


def time_of(line: str, now: float) -> float | None:
    """When a line of a log was written, as Unix time; one without a year is of the last twelve months."""
    with contextlib.suppress(ValueError, OverflowError):
        if match := _ISO.match(line):
            parts = [int(part) for part in match.groups()[:6]]
            zone = match[7]
            if zone is None:
                return time.mktime((*parts, 0, 0, -1))  # type: ignore[arg-type] # six numbers and three more
            shift = 0 if zone == "Z" else int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
            return calendar.timegm((*parts, 0, 0, 0)) - (-shift if zone[0] == "-" else shift)
        if match := _OLD.match(line):
            month = _MONTHS.get(match[1], 0)
            if not month:
                return None
            day, hour, minute, second = (int(part) for part in match.groups()[1:])
            year = time.localtime(now).tm_year
            at = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            return at if at <= now + 24 * 3600 else time.mktime((year - 1, month, day, hour, minute, second, 0, 0, -1))
    return None
