"""Which rules for passwords and guessing PAM really applies: the stacks of its files, with what they include."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.host.files import files_in, settings_of, text_of
from device_agent.host.system import System

# What decides about logins and new passwords; the first file of each that is there is the common part of all services.
_AUTH: Final = ("common-auth", "system-auth", "password-auth", "login", "base-auth", "sshd")
_PASSWORD: Final = ("common-password", "system-auth", "password-auth", "passwd", "base-password", "system-password")
_FOLDERS: Final = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d")
_QUALITY: Final = frozenset({"pam_pwquality.so", "pam_cracklib.so", "pam_passwdqc.so"})
_MAX_DEPTH: Final = 8
_LINE: Final = re.compile(r"^\s*-?(auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+(\S+)\s*(.*)$")
_INCLUDE: Final = re.compile(r"^\s*@include\s+(\S+)")
_CREDITS: Final = ("dcredit", "ucredit", "lcredit", "ocredit")
_PWQUALITY: Final = "/etc/security/pwquality.conf"
_PWQUALITY_LENGTH: Final = 8  # what libpwquality asks for when nothing is said
_CRACKLIB_LENGTH: Final = 9
_UNIX_LENGTH: Final = 6


@dataclass(frozen=True, slots=True)
class PamModule:
    """A line of a stack."""

    kind: str
    name: str
    arguments: tuple[str, ...]

    def value(self, key: str) -> str | None:
        """The value of an argument `key=value`."""
        return next((word.partition("=")[2] for word in self.arguments if word.startswith(f"{key}=")), None)


@dataclass(frozen=True, slots=True)
class PasswordQuality:
    """What a new password must be; None where PAM does not say."""

    is_enforced: bool
    length: int | None
    classes: int | None


def is_there(system: System) -> bool:
    """Whether this system asks PAM at all."""
    return any(system.path(folder).is_dir() for folder in _FOLDERS)


def stack(system: System, kind: str) -> list[PamModule]:
    """The modules of the common files for `auth` or `password`, included files in their place.

    Raises:
        OSError: a file cannot be read.
    """
    found: list[PamModule] = []
    for name in _AUTH if kind == "auth" else _PASSWORD:
        found += [module for module in _modules(system, name, 0) if module.kind == kind]
    return found


def _modules(system: System, name: str, depth: int) -> Iterator[PamModule]:
    file = next((path for folder in _FOLDERS if (path := system.path(f"{folder}/{name}")).is_file()), None)
    if file is None or depth > _MAX_DEPTH or "/" in name:
        return
    for line in text_of(file).replace("\\\n", " ").splitlines():
        if include := _INCLUDE.match(line):
            yield from _modules(system, include[1], depth + 1)
        elif (match := _LINE.match(line)) and match[2] in {"include", "substack"}:
            yield from (one for one in _modules(system, match[3], depth + 1) if one.kind == match[1])
        elif match:
            yield PamModule(match[1], Path(match[3]).name, tuple(match[4].partition("#")[0].split()))


def quality_of(system: System, modules: list[PamModule]) -> PasswordQuality:
    """What the password stack asks of a new password.

    Raises:
        OSError: a file cannot be read.
    """
    module = next((one for one in modules if one.name in _QUALITY), None)
    if module is None:
        unix = next((one for one in modules if one.name == "pam_unix.so"), None)
        shortest = _number(unix.value("minlen")) if unix is not None else None
        return PasswordQuality(is_enforced=False, length=shortest or _UNIX_LENGTH, classes=0)
    if module.name == "pam_passwdqc.so":
        return PasswordQuality(is_enforced=True, length=None, classes=None)
    settings = _pwquality(system) if module.name == "pam_pwquality.so" else {}
    asked = {**settings, **dict(word.split("=", 1) for word in module.arguments if "=" in word)}
    usual = _PWQUALITY_LENGTH if module.name == "pam_pwquality.so" else _CRACKLIB_LENGTH
    length = _number(asked.get("minlen"))
    # A negative credit asks for that many of its kind; `minclass` for that many kinds.
    kinds = sum(1 for key in _CREDITS if asked.get(key, "0").startswith("-"))
    is_enforced = asked.get("enforcing", "1") != "0"
    return PasswordQuality(
        is_enforced, usual if length is None else length, max(kinds, _number(asked.get("minclass")) or 0)
    )


def _pwquality(system: System) -> dict[str, str]:
    files = [*files_in(system.path(f"{_PWQUALITY}.d"), "*.conf"), system.path(_PWQUALITY)]
    return {key: value for file in files for key, value in settings_of(text_of(file)).items()}


def accepts_empty(modules: list[PamModule]) -> bool:
    """Whether the auth stack lets somebody in with an empty password."""
    return any(one.name == "pam_unix.so" and "nullok" in one.arguments for one in modules)


def lockout_of(system: System, modules: list[PamModule]) -> dict[str, Any]:
    """Which module locks after failures: name, failures and seconds.

    Raises:
        OSError: a file cannot be read.
    """
    module = next((one for one in modules if one.name in {"pam_faillock.so", "pam_tally2.so", "pam_tally.so"}), None)
    if module is None:
        return {}
    settings: dict[str, str] = {}
    if module.name == "pam_faillock.so":
        settings = settings_of(text_of(system.path(module.value("conf") or "/etc/security/faillock.conf")))
    given = [one for one in modules if one.name == module.name]
    said = {key: value for one in given for key in ("deny", "unlock_time") if (value := one.value(key)) is not None}
    asked = {**settings, **said}
    is_faillock = module.name == "pam_faillock.so"
    after = _number(asked.get("deny"))
    seconds = _number(asked.get("unlock_time"))
    return {
        "name": "faillock" if is_faillock else "tally2" if module.name == "pam_tally2.so" else "tally",
        "after": 3 if after is None and is_faillock else after,
        "seconds": 600 if seconds is None and is_faillock else seconds,
    }


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text.strip()) else None
