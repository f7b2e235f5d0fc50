"""Counts the TLS errors of the last day in the journal, as a range, so that the report's digest rarely changes."""

import json
import re
import shutil
from collections.abc import Iterable
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

WINDOW_HOURS: Final = 24
MAX_ENTRIES: Final = 4000  # the newest within the window
_MAX_BYTES: Final = 8 * 1024 * 1024
_SECONDS: Final = 20.0
_JOURNAL_FOLDERS: Final = ("/var/log/journal", "/run/log/journal")
_SUBJECT: Final = re.compile(r"\b(?:ssl|tls|x509)|certificate|openssl", re.IGNORECASE)
_ERROR: Final = re.compile(
    r"error:[0-9A-F]{8}:|handshake (?:fail|error)|(?:verif(?:y|ication)|validation) fail"
    r"|alert (?:bad|unknown|certificate|handshake|protocol)|wrong version number|no shared cipher|unsupported protocol"
    r"|certificate (?:has )?expired|unknown ca\b|bad certificate|self[- ]signed certificate"
    r"|(?:ssl|tls)\w* error|ssl_error",
    re.IGNORECASE,
)
# The agent's own connection errors are not findings about the device.
_OWN_IDENTIFIERS: Final = frozenset({"cordon-agent"})


def tls_errors(system: System) -> str:
    """Returns `none`, `few` (below 10), `some` (below 100) or `many`.

    Raises:
        FactsUnavailableError: there is no journal, or it cannot be read.
    """
    system.require_living("TLS errors of the last hours")
    if not system.is_live:
        raise FactsUnavailableError("only the running system has a journal")
    # Without any journal file, journalctl prints nothing and succeeds.
    has_files = any(next(system.path(folder).glob("*/*.journal"), None) for folder in _JOURNAL_FOLDERS)
    if shutil.which("journalctl") is None or not has_files:
        raise FactsUnavailableError("no journal")
    return count_journal_tls_errors()


def count_journal_tls_errors() -> str:
    """Counts the errors that journalctl prints; returns and raises as `tls_errors`."""
    argv = ["journalctl", "--no-pager", "-o", "json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER", "--all"]
    argv += [f"--since=-{WINDOW_HOURS}h", "-n", str(MAX_ENTRIES)]
    try:
        done = run(argv, seconds=_SECONDS, ok_statuses=frozenset({0, 1}), max_bytes=_MAX_BYTES)
    except ExecuteError as e:
        raise FactsUnavailableError(str(e)) from e
    # journalctl ends with status 0 whenever it prints nothing, for whatever reason.
    if "not seeing messages from other users" in done.stderr or "insufficient permissions" in done.stderr.lower():
        raise FactsUnavailableError("needs root")
    if "No journal files were" in done.stderr or (done.status != 0 and not done.stdout):
        raise FactsUnavailableError("no journal")
    return bucket_label(sum(is_tls_error(line) for line in done.stdout.splitlines()))


def is_tls_error(line: str) -> bool:
    """Whether a journal entry (JSON) reports a TLS error; malformed entries do not."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict) or entry.get("SYSLOG_IDENTIFIER") in _OWN_IDENTIFIERS:
        return False
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # journalctl prints bytes that are not UTF-8 as numbers
        message = _text(message)
    if not isinstance(message, str):
        return False
    message = message[:2048]
    return _SUBJECT.search(message) is not None and _ERROR.search(message) is not None


def _text(numbers: Iterable[object]) -> str:
    return bytes(n for n in numbers if isinstance(n, int) and 0 <= n < 256)[:2048].decode(errors="replace")


def bucket_label(count: int) -> str:
    """Returns the label of the range that a count falls into."""
    if count == 0:
        return "none"
    return "few" if count < 10 else "some" if count < 100 else "many"
