"""Who gets in and how: accounts, password rules, sudo, and what stops guessing."""

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from device_agent.collectors.access import fail2ban, failed_logins, pam
from device_agent.collectors.access.accounts import PasswdEntry, ShadowEntry, accounts, secret_from, secrets
from device_agent.collectors.base import GapRecorder, Section
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import files_in, settings_of, text_of
from device_agent.host.system import System

_DEFS: Final = ("/etc/login.defs", "/usr/etc/login.defs")
_LIMITS: Final = {"max_days": "PASS_MAX_DAYS", "min_days": "PASS_MIN_DAYS", "warn_days": "PASS_WARN_AGE"}
_SHADOWED: Final = "x"
_OF_SHADOW: Final = ("password_accounts", "empty_passwords", "hash_algorithms", "weak_hashes", "never_expiring")
_OF_PAM: Final = ("quality_enforced", "minimum_length", "minimum_classes", "accepts_empty")
_UNIX_METHODS: Final = frozenset({"yescrypt", "gost_yescrypt", "sha512", "sha256", "blowfish", "bigcrypt", "md5"})
_SUDOERS: Final = "/etc/sudoers"
_INCLUDE: Final = re.compile(r"^[@#]include(dir)?\s+(\S+)")
_MAX_DEPTH: Final = 8
_DAYS: Final = re.compile(r"^-1$|^[0-9]{1,6}$")


def collect(system: System) -> Section:
    """The `access` section; what only root may read is None, with `needs root` in its gaps.

    Raises:
        FactsUnavailableError: there is no list of accounts.
    """
    try:
        known = accounts(system)
    except FileNotFoundError as e:
        raise FactsUnavailableError("no /etc/passwd") from e
    gaps = GapRecorder()
    section: dict[str, Any] = {
        "state": "ok",
        "accounts": len(known),
        "root_equals": sorted({one.name for one in known if one.uid == 0 and one.name != "root"}),
        **dict.fromkeys((*_OF_SHADOW, *_OF_PAM)),
        **_login_defs(system, gaps),
    }
    try:
        section.update(of_secrets(_all_secrets(system, known)))
    except OSError as e:
        for name in _OF_SHADOW:
            gaps.add(name, "needs root" if isinstance(e, PermissionError) else f"/etc/shadow: {e.strerror}")
    modules = _of_pam(system, gaps, section)
    _of_lockout(system, gaps, section, modules)
    section["sudo_without_password"] = section["failed_logins"] = None
    with gaps.capture("sudo_without_password"):
        section["sudo_without_password"] = sorted({*_sudo(system), *_doas(system)})
    with gaps.capture("failed_logins"):
        section["failed_logins"] = failed_logins.collect(system, time.time())
    return {**section, "gaps": gaps.as_list()}


def _all_secrets(system: System, known: list[PasswdEntry]) -> list[ShadowEntry]:
    own = [secret_from(one.name, one.password, None) for one in known if one.password != _SHADOWED]
    # Without any `x` there is no shadow file to ask.
    return own if len(own) == len(known) and known else own + secrets(system)


def of_secrets(found: list[ShadowEntry]) -> dict[str, Any]:
    """The fields that shadow tells."""
    usable = [one for one in found if one.algorithm]
    return {
        "password_accounts": len(usable),
        "empty_passwords": sorted({one.name for one in found if one.is_empty}),
        "hash_algorithms": sorted({one.algorithm for one in usable}),
        "weak_hashes": sorted({one.name for one in usable if one.is_weak}),
        "never_expiring": sorted({one.name for one in usable if one.max_days is None}),
    }


def _login_defs(system: System, gaps: GapRecorder) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(_LIMITS)
    text = ""
    with gaps.capture("max_days"):
        text = next((text for place in _DEFS if (text := text_of(system.path(place)))), "")
    values = settings_of(text, None)
    for field, key in _LIMITS.items():
        if _DAYS.match(values.get(key, "")):
            fields[field] = int(values[key])
        else:
            gaps.add(field, f"login.defs does not set {key}" if text else "no login.defs")
    return {**fields, "new_hash": values.get("ENCRYPT_METHOD", "").lower()}


def _of_pam(system: System, gaps: GapRecorder, section: dict[str, Any]) -> list[pam.PamModule]:
    if not pam.is_there(system):
        # Small systems check nothing but what their `passwd` has built in.
        section["quality_enforced"] = False
        for field in _OF_PAM[1:]:
            gaps.add(field, "no PAM here")
        return []
    logins: list[pam.PamModule] = []
    with gaps.capture("quality_enforced"):
        modules = pam.stack(system, "password")
        quality = pam.quality_of(system, modules)
        section["quality_enforced"] = quality.is_enforced
        section["minimum_length"], section["minimum_classes"] = quality.length, quality.classes
        methods = [word for one in modules if one.name == "pam_unix.so" for word in one.arguments]
        section["new_hash"] = next((word for word in methods if word in _UNIX_METHODS), section["new_hash"])
    with gaps.capture("accepts_empty"):
        logins = pam.stack(system, "auth")
        section["accepts_empty"] = pam.accepts_empty(logins)
    return logins


def _of_lockout(system: System, gaps: GapRecorder, section: dict[str, Any], logins: list[pam.PamModule]) -> None:
    section["lockout"] = section["lockout_after"] = section["lockout_seconds"] = None
    with gaps.capture("lockout"):
        guards = [one for one in (pam.lockout_of(system, logins), fail2ban.guard(system)) if one]
        section["lockout"] = sorted(one["name"] for one in guards)
        section["lockout_after"] = min((one["after"] for one in guards if one["after"] is not None), default=None)
        section["lockout_seconds"] = max((one["seconds"] for one in guards if one["seconds"] is not None), default=None)


def _sudo(system: System, place: str = _SUDOERS, depth: int = 0) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    for line in text_of(system.path(place)).replace("\\\n", " ").splitlines():
        if include := _INCLUDE.match(line):
            if include[1]:
                for file in files_in(system.path(include[2])):
                    # sudo passes over names with a dot or a tilde at the end.
                    if "." not in file.name and not file.name.endswith("~"):
                        yield from _sudo(system, f"{include[2].rstrip('/')}/{file.name}", depth + 1)
            elif include[2].startswith("/"):
                yield from _sudo(system, include[2], depth + 1)
            continue
        bare = line.partition("#")[0].strip()
        words = bare.split()
        is_free = "!authenticate" in bare if bare.startswith("Defaults") else "NOPASSWD:" in bare.replace(" :", ":")
        if words and is_free:
            yield words[0]


def _doas(system: System) -> Iterator[str]:
    for file in (system.path("/etc/doas.conf"), *files_in(system.path("/etc/doas.d"), "*.conf")):
        for line in text_of(file).splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["permit"] and "nopass" in words:
                who = next((word for word in words[1:] if word not in {"nopass", "persist", "keepenv", "nolog"}), "")
                yield f"doas {who}".strip()
