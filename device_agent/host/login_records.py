"""Failed logins in the login records of glibc (btmp) and in the log lines of sshd, dropbear and login."""

import re
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

# glibc's record of a login; machines that never were 32 bits wide have longer ones.
RECORD: Final = struct.Struct("=h2xi32s4s32s256shhiii16s20x")
WIDE_RECORD: Final = struct.Struct("=h2xi32s4s32s256shhqqq16s24x")
WIDE_MACHINES: Final = frozenset({"aarch64", "riscv64", "loongarch64"})
_HOST_FIELD: Final = 5  # of either record
_MAX_SOURCES: Final = 4096
_MAX_SOURCE_LENGTH: Final = 128
_MAX_LINE_LENGTH: Final = 1024
_MAX_REPEATED: Final = 1000  # of one line that syslog folded
# The tag of a log line: the program that wrote it. What it quotes of a client, such as a user name, comes after it.
_TAG: Final = re.compile(r"(?:^|\s)([A-Za-z][\w.-]*)(?:\[\d+\])?:\s")
_REPEATED: Final = re.compile(r"^message repeated (\d{1,6}) times: \[ ?(.*)\]$")
_PEER: Final = r"(?P<source>[0-9A-Fa-f.:%\w-]{1,64})"
# User names may contain anything, also an address: each pattern is bound to the end or to the beginning of the message.
_SSHD: Final = re.compile(
    rf"^(?:Failed (?:password|keyboard-interactive/pam) for .* from {_PEER} port \d+(?: ssh2)?(?: \[preauth\])?"
    rf"|(?:error: )?maximum authentication attempts exceeded for .* from {_PEER.replace('source', 'other')}"
    r" port \d+(?: ssh2)?(?: \[preauth\])?)$"
)
# sshd writes this of each attempt through PAM, and of some of them a line of `_SSHD` too.
_PAM: Final = re.compile(
    rf"^(?:error: )?PAM: (?:Authentication failure|User not known(?:(?! for ).)*) for .* from {_PEER}$"
)
_LUCI: Final = re.compile(rf"^(?:\[\w+\] )?(?:luci: )?failed login on \S+ for .* from {_PEER}$")
_DROPBEAR: Final = re.compile(
    rf"^(?:Bad (?:PAM )?password attempt for .*|Login attempt for nonexistent user.*|Max auth tries reached.*)"
    rf" from (?:{_PEER}):\d+$",
    re.IGNORECASE,
)
_LOGIN: Final = re.compile(
    r"^(?:FAILED LOGIN (?:\(\d+\)|\d+) (?:on '[^']*' )?from '?(?P<source>[^'\s]{1,64})'? FOR "
    r"|invalid password for .* on '[^']*' from '(?P<other>[^']{1,64})'$)",
    re.IGNORECASE,
)
_LOCAL_LOGIN: Final = re.compile(
    r"^(?:FAILED LOGIN (?:\(\d+\)|\d+) on '[^']*' FOR |invalid password for )", re.IGNORECASE
)
_PATTERNS: Final = {
    **dict.fromkeys(("sshd", "sshd-session", "sshd-auth"), _SSHD),
    "dropbear": _DROPBEAR,
    "login": _LOGIN,
    **dict.fromkeys(("uhttpd", "luci"), _LUCI),
}


def source_of(fields: tuple[Any, ...]) -> str:
    """Returns the source address in the fields of a login record; `local` without one."""
    return fields[_HOST_FIELD].partition(b"\0")[0].decode(errors="replace")[:_MAX_SOURCE_LENGTH] or "local"


def count_lines(lines: Iterable[str]) -> Counter[str]:
    """Counts the failed logins in log lines by source address."""
    counts: Counter[str] = Counter()
    of_pam: Counter[str] = Counter()
    for line in lines:
        source, times, is_pam = _failure_in(line[:_MAX_LINE_LENGTH].rstrip())
        if source:
            add_failure(of_pam if is_pam else counts, source, times)
    return counts | of_pam  # the larger of both


def _failure_in(line: str) -> tuple[str, int, bool]:
    """Returns source and number of the failed logins of a line, and whether PAM's; an empty source for none."""
    tag = _TAG.search(line)
    pattern = _PATTERNS.get(tag[1]) if tag else None
    if tag is None or pattern is None:
        return "", 0, False
    message, times = line[tag.end() :].strip(), 1
    if repeated := _REPEATED.match(message):
        times, message = min(int(repeated[1]), _MAX_REPEATED), repeated[2]
    match = pattern.match(message)
    if match is None and pattern is _SSHD and (match := _PAM.match(message)):
        return match["source"], times, True
    if match is None:
        return ("local", times, False) if pattern is _LOGIN and _LOCAL_LOGIN.match(message) else ("", 0, False)
    groups = match.groupdict()
    return groups["source"] or groups.get("other") or "local", times, False


def add_failure(counts: Counter[str], source: str, times: int = 1) -> None:
    """Counts failures; sources beyond the first 4096 are dropped."""
    source = source[:_MAX_SOURCE_LENGTH]
    if source in counts or len(counts) < _MAX_SOURCES:
        counts[source] += times
