"""Parses /etc/passwd and /etc/shadow: accounts, and the algorithms of their password hashes, never a hash."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_lines
from device_agent.host.system import System

T = TypeVar("T")
_MAX_ACCOUNTS: Final = 20_000  # lines of each file
_MAX_LINE: Final = 4096  # characters, or bytes of a file
_MAX_BYTES: Final = 16 * 1024 * 1024
_ALGORITHMS: Final = {
    "y": "yescrypt", "gy": "gost-yescrypt", "7": "scrypt", "6": "sha512", "5": "sha256", "2a": "bcrypt",
    "2b": "bcrypt", "2x": "bcrypt", "2y": "bcrypt", "1": "md5", "md5": "sunmd5", "3": "nthash", "sha1": "sha1",
}  # fmt: skip
_STRONG: Final = frozenset({"yescrypt", "gost-yescrypt", "scrypt", "sha512", "sha256", "bcrypt"})
_CRYPT_PREFIX: Final = re.compile(r"^\$([A-Za-z0-9]{1,8})[$,]")
_DES: Final = re.compile(r"^[A-Za-z0-9./]{13}$")
_BSDI: Final = re.compile(r"^_[A-Za-z0-9./]{19}$")
# Of the empty password with an empty salt, and the DES hash of images that want no password.
_HASHES_OF_NOTHING: Final = frozenset(
    {
        "U6aMy0wojraho", "$1$$qRPK7m23GJusamGpoGLby/", "$5$$3c2QQ0KjIU1OLtB29cl8Fplc2WN7X89bnoEjaR7tWu.",
        "$6$$/chiBau24cE26QQVW3IfIe68Xu5.JQ4E8Ie7lcRLwqxO5cxGuBhqF2HmTL.zWJ9zjChg3yJYFXeGBQ2y3Ba1d1",
    }
)  # fmt: skip
_NEVER: Final = 99_999  # days, as the shadow tools write it


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    """A line of passwd; `password` is its second field, `x` where shadow holds the password."""

    name: str
    uid: int
    password: str
    shell: str


@dataclass(frozen=True, slots=True)
class ShadowEntry:
    """The password properties of an account.

    `algorithm` is empty without a password to log in with, `max_days` None where the password never expires.
    """

    name: str
    is_empty: bool
    is_locked: bool
    algorithm: str
    max_days: int | None

    @property
    def has_weak_hash(self) -> bool:
        """Whether the hash can be guessed quickly."""
        return bool(self.algorithm) and self.algorithm not in _STRONG


def accounts(system: System) -> list[PasswdEntry]:
    """Returns the accounts in passwd.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    return list(_entries(system, "/etc/passwd", parse_passwd_line))


def shadow_entries(system: System) -> list[ShadowEntry]:
    """Returns the accounts in shadow.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    return list(_entries(system, "/etc/shadow", parse_shadow_line))


def _entries(system: System, path: str, parse: Callable[[str], T | None]) -> Iterator[T]:
    yield from parse_lines(read_lines(system.path(path), _MAX_BYTES, _MAX_LINE), parse)


def parse_passwd_line(line: str) -> PasswdEntry | None:
    """Parses a line of passwd; returns None when it is malformed."""
    fields = line.rstrip("\n").split(":")
    if len(fields) < 7 or not fields[0] or fields[0][0] in "+-#" or not re.fullmatch(r"[0-9]{1,10}", fields[2]):
        return None
    return PasswdEntry(fields[0], int(fields[2]), fields[1], fields[6])


def parse_shadow_line(line: str) -> ShadowEntry | None:
    """Parses a line of shadow; returns None when it is malformed."""
    fields = line.rstrip("\n").split(":")
    if len(fields) < 2 or not fields[0] or fields[0][0] in "+-#":
        return None
    days = fields[4] if len(fields) > 4 else ""
    if fields[2:3] == [""]:
        days = ""  # without the date of the last change, no password ages
    limit = int(days) if re.fullmatch(r"[0-9]{1,9}", days) else _NEVER
    return classify_password(fields[0], fields[1], limit if limit < _NEVER else None)


def classify_password(name: str, password: str, max_days: int | None) -> ShadowEntry:
    """Returns the properties of a password field without the hash."""
    is_locked = password.startswith(("!", "*"))
    hashed = password.lstrip("!*")
    algorithm = "" if is_locked or not hashed else hash_algorithm(hashed)
    return ShadowEntry(name, password == "" or password in _HASHES_OF_NOTHING, is_locked, algorithm, max_days)


def hash_algorithm(hashed: str) -> str:
    """Returns the algorithm of a password hash; empty for a text that matches no password."""
    match = _CRYPT_PREFIX.match(hashed)
    if match is not None:
        return _ALGORITHMS.get(match[1], "unknown")
    if _DES.match(hashed):
        return "des"
    if _BSDI.match(hashed):
        return "bsdi-des"
    # `x`, `NP`, `LK` and the like.
    return ""


def parse_lines(lines: Iterable[str], parse: Callable[[str], T | None]) -> Iterator[T]:
    """Yields the parsed lines; skips malformed ones.

    Raises:
        FactsUnavailableError: a line is overlong, or there are too many.
    """
    for number, line in enumerate(lines):
        if number >= _MAX_ACCOUNTS or len(line) > _MAX_LINE:
            raise FactsUnavailableError(f"more than {_MAX_ACCOUNTS} lines, or one of more than {_MAX_LINE} characters")
        entry = parse(line)
        if entry is not None:
            yield entry
