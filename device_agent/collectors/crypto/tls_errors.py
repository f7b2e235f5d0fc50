"""How many TLS errors the journal has of the last day, in coarse steps, so that an unchanged device stays unchanged."""

import json
import re
import shutil
from collections.abc import Iterable
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

WINDOW_HOURS: Final = 24
MAX_ENTRIES: Final = 4000  # the newest of the window
_MAX_BYTES: Final = 8 * 1024 * 1024
_SECONDS: Final = 20.0
_PLACES: Final = ("/var/log/journal", "/run/log/journal")
_SUBJECT: Final = re.compile(r"\b(?:ssl|tls|x509)|certificate|openssl", re.IGNORECASE)
_COMPLAINT: Final = re.compile(
    r"error:[0-9A-F]{8}:|handshake (?:fail|error)|(?:verif(?:y|ication)|validation) fail"
    r"|alert (?:bad|unknown|certificate|handshake|protocol)|wrong version number|no shared cipher|unsupported protocol"
    r"|certificate (?:has )?expired|unknown ca\b|bad certificate|self[- ]signed certificate"
    r"|(?:ssl|tls)\w* error|ssl_error",
    re.IGNORECASE,
)
# What the agent's own link says must not count as a finding about the device again and again.
_OWN: Final = frozenset({"cordon-agent"})


def tls_errors(system: System) -> str:
    """`none`, `few` (below 10), `some` (below 100) or `many`.

    Raises:
        FactsUnavailableError: there is no journal, it is closed to us, or it cannot be read.
    """
    if not system.is_live:
        raise FactsUnavailableError("only the running system has a journal")
    # Without any file of it, the program shows nothing and calls that success.
    has_files = any(next(system.path(place).glob("*/*.journal"), None) for place in _PLACES)
    if shutil.which("journalctl") is None or not has_files:
        raise FactsUnavailableError("no journal")
    return told_by_journalctl()


def told_by_journalctl() -> str:
    """What the program shows of the window, as `tls_errors`."""
    argv = ["journalctl", "--no-pager", "-o", "json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER", "--all"]
    argv += [f"--since=-{WINDOW_HOURS}h", "-n", str(MAX_ENTRIES)]
    try:
        done = run(argv, seconds=_SECONDS, ok=frozenset({0, 1}), max_bytes=_MAX_BYTES)
    except ExecuteError as e:
        raise FactsUnavailableError(str(e)) from e
    # It ends with 0 when it has nothing to show, for whatever reason.
    if "not seeing messages from other users" in done.err or "insufficient permissions" in done.err.lower():
        raise FactsUnavailableError("needs root")
    if "No journal files were" in done.err or (done.status != 0 and not done.out):
        raise FactsUnavailableError("no journal")
    return steps(sum(is_tls_error(line) for line in done.out.splitlines()))


def is_tls_error(line: str) -> bool:
    """Whether an entry of the journal, as JSON, speaks of a TLS error; a damaged one does not."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict) or entry.get("SYSLOG_IDENTIFIER") in _OWN:
        return False
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # bytes that are no text
        message = _text(message)
    if not isinstance(message, str):
        return False
    message = message[:2048]
    return _SUBJECT.search(message) is not None and _COMPLAINT.search(message) is not None


def _text(numbers: Iterable[object]) -> str:
    return bytes(n for n in numbers if isinstance(n, int) and 0 <= n < 256)[:2048].decode(errors="replace")


def steps(count: int) -> str:
    """A count in words that seldom change."""
    if count == 0:
        return "none"
    return "few" if count < 10 else "some" if count < 100 else "many"
