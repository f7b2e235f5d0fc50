"""Failed logins in the login records of glibc (btmp) and in the log lines of sshd and dropbear."""

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
_FAILED: Final = re.compile(
    r"(?:Failed (?:password|keyboard-interactive/pam) for .{0,80}? from (\S{1,64}) port"
    r"|Bad password attempt for .{0,80}? from (\S{1,64}):\d+"
    r"|Login attempt for nonexistent user.{0,80}? from (\S{1,64}):\d+)"
)


def source_of(fields: tuple[Any, ...]) -> str:
    """Returns the source address in the fields of a login record; `local` without one."""
    return fields[_HOST_FIELD].partition(b"\0")[0].decode(errors="replace")[:_MAX_SOURCE_LENGTH] or "local"


def count_lines(lines: Iterable[str]) -> Counter[str]:
    """Counts the failed logins in log lines by source address."""
    counts: Counter[str] = Counter()
    for line in lines:
        if match := _FAILED.search(line[:_MAX_LINE_LENGTH]):
            add_failure(counts, match[1] or match[2] or match[3])
    return counts


def add_failure(counts: Counter[str], source: str) -> None:
    """Counts one failure; sources beyond the first 4096 are dropped."""
    source = source[:_MAX_SOURCE_LENGTH]
    if source in counts or len(counts) < _MAX_SOURCES:
        counts[source] += 1
