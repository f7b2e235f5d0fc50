"""Accounts and their passwords, as passwd and shadow tell them: names of algorithms, never a hash."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from device_agent.host.system import System

T = TypeVar("T")
_MAX_ACCOUNTS: Final = 20_000  # lines of each file
_MAX_LINE: Final = 4096  # letters
_ALGORITHMS: Final = {
    "y": "yescrypt", "gy": "gost-yescrypt", "7": "scrypt", "6": "sha512", "5": "sha256", "2a": "bcrypt",
    "2b": "bcrypt", "2x": "bcrypt", "2y": "bcrypt", "1": "md5", "md5": "sunmd5", "3": "nthash", "sha1": "sha1",
}  # fmt: skip
_STRONG: Final = frozenset({"yescrypt", "gost-yescrypt", "scrypt", "sha512", "sha256", "bcrypt"})
_MARKED: Final = re.compile(r"^\$([A-Za-z0-9]{1,8})[$,]")
_DES: Final = re.compile(r"^[A-Za-z0-9./]{13}$")
_BSDI: Final = re.compile(r"^_[A-Za-z0-9./]{19}$")
_FOREVER: Final = 99_999  # days; what shadow tools write for "never"


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    """A line of passwd; `password` is its own second field, `x` where shadow has it."""

    name: str
    uid: int
    password: str
    shell: str


@dataclass(frozen=True, slots=True)
class ShadowEntry:
    """A line of shadow without its secret: which kind of password, and how long it holds.

    `algorithm` is empty where there is no password to log in with; `max_days` None where it never runs out.
    """

    name: str
    is_empty: bool
    is_locked: bool
    algorithm: str
    max_days: int | None

    @property
    def is_weak(self) -> bool:
        """Whether its hash is one that is guessed quickly."""
        return bool(self.algorithm) and self.algorithm not in _STRONG


def accounts(system: System) -> list[PasswdEntry]:
    """The accounts of passwd.

    Raises:
        OSError: it is not there or cannot be read.
    """
    return list(_lines(system, "/etc/passwd", account_of))


def secrets(system: System) -> list[ShadowEntry]:
    """The accounts of shadow.

    Raises:
        OSError: it is not there or cannot be read.
    """
    return list(_lines(system, "/etc/shadow", secret_of))


def _lines(system: System, place: str, read: Callable[[str], T | None]) -> Iterator[T]:
    with system.path(place).open(errors="replace") as file:
        yield from read_lines(file, read)


def account_of(line: str) -> PasswdEntry | None:
    """One line of passwd; None when it is none."""
    fields = line.rstrip("\n").split(":")
    if len(fields) < 7 or not fields[0] or fields[0][0] in "+-#" or not re.fullmatch(r"[0-9]{1,10}", fields[2]):
        return None
    return PasswdEntry(fields[0], int(fields[2]), fields[1], fields[6])


def secret_of(line: str) -> ShadowEntry | None:
    """One line of shadow; None when it is none."""
    fields = line.rstrip("\n").split(":")
    if len(fields) < 2 or not fields[0] or fields[0][0] in "+-#":
        return None
    days = fields[4] if len(fields) > 4 else ""
    limit = int(days) if re.fullmatch(r"[0-9]{1,9}", days) else _FOREVER
    return secret_from(fields[0], fields[1], limit if limit < _FOREVER else None)


def secret_from(name: str, password: str, max_days: int | None) -> ShadowEntry:
    """What a password field tells without the password."""
    is_locked = password.startswith(("!", "*"))
    bare = password.lstrip("!*")
    return ShadowEntry(name, password == "", is_locked, "" if is_locked or not bare else algorithm_of(bare), max_days)


def algorithm_of(hashed: str) -> str:
    """The name of the algorithm behind a password field."""
    match = _MARKED.match(hashed)
    if match is not None:
        return _ALGORITHMS.get(match[1], "unknown")
    if _DES.match(hashed):
        return "des"
    if _BSDI.match(hashed):
        return "bsdi-des"
    # Anything else can never match a password: `x`, `NP`, `LK` and the like.
    return ""


def read_lines(lines: Iterable[str], read: Callable[[str], T | None]) -> Iterator[T]:
    """Every line that is one; damaged and overlong ones are passed over."""
    for line in islice(lines, _MAX_ACCOUNTS):
        one = read(line) if len(line) <= _MAX_LINE else None
        if one is not None:
            yield one
