"""The password and lockout rules that PAM applies, from its configured stacks with their includes resolved."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.includes import IncludeBudget
from device_agent.host.system import System

# The files for logins and for new passwords: common parts of all services, as distributions name them, and services.
_AUTH: Final = ("common-auth", "system-auth", "password-auth", "login", "base-auth", "sshd")
_PASSWORD: Final = ("common-password", "system-auth", "password-auth", "passwd", "base-password", "system-password")
_FOLDERS: Final = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d")
_QUALITY_MODULES: Final = frozenset({"pam_pwquality.so", "pam_cracklib.so", "pam_passwdqc.so"})
_LOCKOUT_MODULES: Final = {"pam_faillock.so": "faillock", "pam_tally2.so": "tally2", "pam_tally.so": "tally"}
_PASSWORD_MODULES: Final = frozenset({"pam_unix.so", "pam_unix_auth.so", "pam_tcb.so", "pam_pwdb.so"})
_ACCEPT_EMPTY: Final = frozenset({"nullok", "nullok_secure"})
_LOGIN_SERVICES: Final = ("login", "sshd")
_COUNTING: Final = frozenset({"authfail", "authsucc"})
_MAX_DEPTH: Final = 8
_MAX_LINES: Final = 5_000  # of one service, with the files that it includes, each time
_LINE: Final = re.compile(r"^\s*-?(auth|account|password|session)\s+(\[[^\]]*\]|\S+)\s+(\S+)\s*(.*)")
_INCLUDE: Final = re.compile(r"^\s*@include\s+(\S+)")
_CREDITS: Final = ("dcredit", "ucredit", "lcredit", "ocredit")
_PWQUALITY: Final = "/etc/security/pwquality.conf"
_PWQUALITY_LENGTH: Final = 8  # libpwquality's default
_CRACKLIB_LENGTH: Final = 9
_UNIX_LENGTH: Final = 6
_PASSWDQC_MIN: Final = "disabled,24,11,8,7"


@dataclass(frozen=True, slots=True)
class PamModule:
    """A line of a stack; an optional module decides nothing beside others."""

    kind: str
    name: str
    arguments: tuple[str, ...]
    is_optional: bool = False

    def value(self, key: str) -> str | None:
        """Returns the value of an argument `key=value`."""
        return next((word.partition("=")[2] for word in self.arguments if word.startswith(f"{key}=")), None)


@dataclass(frozen=True, slots=True)
class PasswordQuality:
    """The requirements for a new password; None where the PAM module does not state them."""

    is_enforced: bool
    length: int | None
    classes: int | None


def uses_pam(system: System) -> bool:
    """Whether PAM is configured on this system."""
    return any(system.path(folder).is_dir() for folder in _FOLDERS)


def read_stack(system: System, kind: str) -> list[PamModule]:
    """Returns the modules of the stacks for `auth` or `password`, included files in place.

    Raises:
        OSError: a file cannot be read.
    """
    modules: list[PamModule] = []
    for name in _AUTH if kind == "auth" else _PASSWORD:
        if _file_of(system, name) is not None:
            modules += service_stack(system, kind, name)
    return modules


def service_stack(system: System, kind: str, service: str) -> list[PamModule]:
    """Returns the modules of one service, included files in place.

    Raises:
        FactsUnavailableError: files are included too deeply, or too often.
        OSError: a file cannot be read.
    """
    budget = IncludeBudget(system, _MAX_DEPTH)
    return [module for module in _modules(system, service, 0, count(), budget) if module.kind == kind]


def _file_of(system: System, name: str) -> Path | None:
    return next((path for folder in _FOLDERS if (path := system.path(f"{folder}/{name}")).is_file()), None)


def _modules(system: System, name: str, depth: int, lines: "count[int]", budget: IncludeBudget) -> Iterator[PamModule]:
    file = _file_of(system, name)
    if file is None or "/" in name:
        return  # PAM refuses a login through a missing file
    if depth > _MAX_DEPTH:
        raise FactsUnavailableError(f"the PAM file {name} is included too deeply")
    for line in budget.text(file, depth).replace("\\\n", " ").splitlines():
        if next(lines) >= _MAX_LINES:
            raise FactsUnavailableError(f"the PAM files of one service have more than {_MAX_LINES} lines")
        if include := _INCLUDE.match(line):
            yield from _modules(system, include[1], depth + 1, lines, budget)
        elif (match := _LINE.match(line)) and match[2] in {"include", "substack"}:
            included = _modules(system, match[3], depth + 1, lines, budget)
            yield from (module for module in included if module.kind == match[1])
        elif match:
            arguments = tuple(match[4].partition("#")[0].split())
            yield PamModule(match[1], Path(match[3]).name, arguments, is_optional=match[2] == "optional")


def password_quality(system: System, modules: list[PamModule]) -> PasswordQuality:
    """Returns the requirements of the password stack.

    Raises:
        OSError: a file cannot be read.
    """
    module = next((module for module in modules if module.name in _QUALITY_MODULES and not module.is_optional), None)
    if module is None:
        return _quality_of_unix(modules)
    if module.name == "pam_passwdqc.so":
        return PasswordQuality(is_enforced=True, length=_passwdqc_length(module), classes=None)
    settings = _pwquality(system) if module.name == "pam_pwquality.so" else {}
    options = {**settings, **dict(argument.split("=", 1) for argument in module.arguments if "=" in argument)}
    if options.get("enforcing", "1") == "0":  # it only warns
        return _quality_of_unix(modules)
    default = _PWQUALITY_LENGTH if module.name == "pam_pwquality.so" else _CRACKLIB_LENGTH
    length = _number(options.get("minlen"))
    # A positive credit makes the password shorter by as many characters; pam_cracklib gives one for each class.
    given = "1" if module.name == "pam_cracklib.so" else "0"
    credit = sum(_number(options.get(key, given)) or 0 for key in _CREDITS)
    # A negative credit requires characters of its class; `minclass` requires that many classes.
    classes = sum(1 for key in _CREDITS if options.get(key, "0").startswith("-"))
    effective = max(_UNIX_LENGTH, (default if length is None else length) - credit)
    return PasswordQuality(
        is_enforced=True, length=effective, classes=max(classes, _number(options.get("minclass")) or 0)
    )


def _quality_of_unix(modules: list[PamModule]) -> PasswordQuality:
    unix = next((module for module in modules if module.name == "pam_unix.so"), None)
    length = _number(unix.value("minlen")) if unix is not None else None
    return PasswordQuality(is_enforced=False, length=length or _UNIX_LENGTH, classes=0)


def _passwdqc_length(module: PamModule) -> int | None:
    """Returns the shortest length for any kind of password [passwdqc.conf(5)]; None where a file may set it."""
    if module.value("config") is not None:
        return None
    words = (module.value("min") or _PASSWDQC_MIN).split(",")
    lengths = [int(word) for word in words if re.fullmatch(r"[0-9]{1,6}", word)]
    return min(lengths) if lengths and len(lengths) + words.count("disabled") == len(words) else None


def _pwquality(system: System) -> dict[str, str]:
    files = [*list_files(system.path(f"{_PWQUALITY}.d"), "*.conf"), system.path(_PWQUALITY)]
    return {key: value for file in files for key, value in parse_key_values(read_text(file)).items()}


def accepts_empty(modules: list[PamModule]) -> bool:
    """Whether the auth stack accepts an empty password."""
    return any(
        module.name in _PASSWORD_MODULES and not _ACCEPT_EMPTY.isdisjoint(module.arguments) for module in modules
    )


def trusted_by_su(system: System) -> Iterator[str]:
    """Yields the groups, as `su %wheel`, whose members become root by su without a password.

    Raises:
        FactsUnavailableError: files are included too deeply.
        OSError: a file cannot be read.
    """
    for service in ("su", "su-l"):
        for module in service_stack(system, "auth", service):
            if module.name == "pam_wheel.so" and "trust" in module.arguments and "deny" not in module.arguments:
                yield f"su %{module.value('group') or 'wheel'}"


def lockout_module(system: System, modules: list[PamModule]) -> dict[str, Any]:
    """Returns `name`, `after` (failures) and `seconds` of the module that locks accounts; empty without one.

    Every service by which somebody logs in has to have it: what `login` locks is open to guesses through `sshd`.

    Raises:
        FactsUnavailableError: files are included too deeply.
        OSError: a file cannot be read.
    """
    services = [name for name in _LOGIN_SERVICES if _file_of(system, name) is not None]
    found = [_lockout_of(system, service_stack(system, "auth", name)) for name in services]
    if not services:
        return _lockout_of(system, modules)
    if not all(found):
        return {}
    known = [lockout for lockout in found if lockout["after"] is not None]
    return max(known, key=lambda lockout: lockout["after"], default=found[0])


def _lockout_of(system: System, modules: list[PamModule]) -> dict[str, Any]:
    name = next((module.name for module in modules if module.name in _LOCKOUT_MODULES and not module.is_optional), None)
    if name is None:
        return {}
    entries = [module for module in modules if module.name == name]
    is_faillock = name == "pam_faillock.so"
    if is_faillock and not _locks(modules):
        return {}
    options: dict[str, str] = {}
    if is_faillock:
        options = parse_key_values(read_text(system.path(entries[0].value("conf") or "/etc/security/faillock.conf")))
    for entry in entries:
        options.update({key: value for key in ("deny", "unlock_time") if (value := entry.value(key)) is not None})
    after = _number(options.get("deny"))
    seconds = _number(options.get("unlock_time"))
    if after == 0:  # never locks
        return {}
    return {
        "name": _LOCKOUT_MODULES[name],
        "after": 3 if after is None and is_faillock else after,
        "seconds": 600 if seconds is None and is_faillock else seconds,
    }


def _locks(modules: list[PamModule]) -> bool:
    """Whether pam_faillock both counts failures and looks at them before a right password ends the stack."""
    names = [module.name for module in modules]
    first = names.index("pam_unix.so") if "pam_unix.so" in names else len(names)
    before = (module for module in modules[:first] if module.name == "pam_faillock.so")
    is_asked = any(_COUNTING.isdisjoint(module.arguments) for module in before)
    return is_asked and any(module.name == "pam_faillock.so" and "authfail" in module.arguments for module in modules)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text.strip()) else None
