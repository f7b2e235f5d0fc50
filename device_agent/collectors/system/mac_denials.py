"""Recent refusals of SELinux and AppArmor, from the audit log or the kernel's; counted coarsely."""

import re
import shutil
from collections.abc import Iterable
from typing import Final

from device_agent.collectors.access.failed_logins import WINDOW_SECONDS, time_of
from device_agent.collectors.reading import coarse
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import run
from device_agent.host.files import tail_of
from device_agent.host.system import System

_AUDIT: Final = "/var/log/audit/audit.log"
_LOGS: Final = ("/var/log/kern.log", "/var/log/syslog", "/var/log/messages")
_MAX_BYTES: Final = 1024 * 1024  # of a log, from its end
_MAX_LINES: Final = 5000  # of the journal
_SECONDS: Final = 15.0
_DENIED: Final = re.compile(r"avc:\s+denied|apparmor=\"DENIED\"")
_STAMP: Final = re.compile(r"audit\((\d{9,11})\.\d+:\d+\)")


def count(system: System, now: float) -> int:
    """Refusals of the last day, coarsely.

    Raises:
        FactsUnavailableError: no log that would have them is here.
        OSError: it is, and cannot be read.
        ExecuteError: the journal cannot be read.
    """
    if system.path(_AUDIT).exists():
        return coarse(count_lines(tail_of(system.path(_AUDIT), _MAX_BYTES).splitlines(), now))
    if system.is_live and shutil.which("journalctl") and system.path("/run/systemd/journal").is_dir():
        if not system.is_root_user:
            raise FactsUnavailableError("needs root")
        argv = ["journalctl", "-q", "-k", "--no-pager", "-o", "short-iso", "--since=-24h", f"-n{_MAX_LINES}"]
        return coarse(count_lines(run(argv, seconds=_SECONDS).out.splitlines(), now))
    for place in _LOGS:
        if system.path(place).exists():
            return coarse(count_lines(tail_of(system.path(place), _MAX_BYTES).splitlines(), now))
    raise FactsUnavailableError("no audit log, kernel log or journal here")


def count_lines(lines: Iterable[str], now: float) -> int:
    """Refusals within the window; a line without a time that can be read does not count."""
    found = 0
    for line in lines:
        if not _DENIED.search(line[:4096]):
            continue
        stamp = _STAMP.search(line[:4096])
        at = float(stamp[1]) if stamp else time_of(line, now)
        found += at is not None and now - WINDOW_SECONDS <= at <= now + 3600
    return found
