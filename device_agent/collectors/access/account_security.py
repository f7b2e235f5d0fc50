"""Account security (section `access`): accounts, password rules, sudo and doas, lockout, failed logins."""

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from device_agent.collectors.access import fail2ban, failed_logins, pam, sshd_config, sudoers
from device_agent.collectors.access.accounts import (
    PasswdEntry,
    ShadowEntry,
    accounts,
    classify_password,
    shadow_entries,
)
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.system import System

_LOGIN_DEFS: Final = ("/etc/login.defs", "/usr/etc/login.defs")
_AGE_FIELDS: Final = {"max_days": "PASS_MAX_DAYS", "min_days": "PASS_MIN_DAYS", "warn_days": "PASS_WARN_AGE"}
_SSHD: Final = "/usr/sbin/sshd"
_SHADOWED: Final = "x"
_SHADOW_FIELDS: Final = ("password_accounts", "empty_passwords", "hash_algorithms", "weak_hashes", "never_expiring")
_PAM_FIELDS: Final = ("quality_enforced", "minimum_length", "minimum_classes", "accepts_empty")
_UNIX_METHODS: Final = frozenset({"yescrypt", "gost_yescrypt", "sha512", "sha256", "blowfish", "bigcrypt", "md5"})
_DAYS: Final = re.compile(r"^-1$|^[0-9]{1,6}$")
_DOAS_OPTIONS: Final = frozenset({"nopass", "persist", "keepenv", "nolog", "setenv", "}"})
_DOAS_WORD: Final = re.compile(r'"((?:\\.|[^"\\])*)"|(#.*|[{}]|(?:\\.|[^\s{}"#\\])+)')


def collect(system: System) -> Section:
    """Collects the `access` section; fields that need root are None, with `needs root` in the gaps.

    Raises:
        FactsUnavailableError: there is no /etc/passwd.
    """
    try:
        passwd = accounts(system)
    except FileNotFoundError as e:
        raise FactsUnavailableError("no /etc/passwd") from e
    section = SectionBuilder(
        accounts=len(passwd),
        root_equals=sorted({entry.name for entry in passwd if entry.uid == 0 and entry.name != "root"}),
    )
    _add_login_defs(system, section)
    with section.capture(*_SHADOW_FIELDS, source="/etc/shadow"):
        section.set(**shadow_fields(_read_all_shadow(system, passwd)))
    auth_modules = _add_pam_fields(system, section)
    if not section["new_hash"]:
        section.gap("new_hash", reason="no method of hashing new passwords is configured")
    _add_lockout_fields(system, section, auth_modules)
    _add_sudo(system, section)
    with section.capture("failed_logins"):
        section.set(failed_logins=failed_logins.collect(system, time.time()))
    return section.build()


def _read_all_shadow(system: System, passwd: list[PasswdEntry]) -> list[ShadowEntry]:
    own = [classify_password(entry.name, entry.password, None) for entry in passwd if entry.password != _SHADOWED]
    # Without any `x` in passwd there is no shadow file.
    return own if len(own) == len(passwd) and passwd else own + shadow_entries(system)


def shadow_fields(entries: list[ShadowEntry]) -> dict[str, Any]:
    """Returns the fields that follow from the password properties of the accounts."""
    usable = [entry for entry in entries if entry.algorithm]
    return {
        "password_accounts": len(usable),
        "empty_passwords": sorted({entry.name for entry in entries if entry.is_empty}),
        "hash_algorithms": sorted({entry.algorithm for entry in usable}),
        "weak_hashes": sorted({entry.name for entry in usable if entry.has_weak_hash}),
        "never_expiring": sorted({entry.name for entry in usable if entry.max_days is None}),
    }


def _add_login_defs(system: System, section: SectionBuilder) -> None:
    text = ""
    with section.capture(*_AGE_FIELDS):
        text = next((text for path in _LOGIN_DEFS if (text := read_text(system.path(path)))), "")
    values = parse_key_values(text, None)
    for field, key in _AGE_FIELDS.items():
        if _DAYS.match(values.get(key, "")):
            section.set(**{field: int(values[key])})
        else:
            section.gap(field, reason=f"login.defs does not set {key}" if text else "no login.defs")
    is_md5 = values.get("MD5_CRYPT_ENAB", "").lower() == "yes"  # where there is no ENCRYPT_METHOD
    section.set(new_hash=values.get("ENCRYPT_METHOD", "md5" if is_md5 else "").lower())


def _add_pam_fields(system: System, section: SectionBuilder) -> list[pam.PamModule]:
    """Adds the fields of PAM; returns the modules of the auth stack."""
    if not pam.uses_pam(system):
        # Without PAM, only the checks built into `passwd` apply.
        section.set(quality_enforced=False)
        section.gap(*_PAM_FIELDS[1:], reason="PAM is not installed")
        return []
    auth_modules: list[pam.PamModule] = []
    with section.capture(*_PAM_FIELDS[:3]):
        modules = pam.read_stack(system, "password")
        quality = pam.password_quality(system, modules)
        section.set(
            quality_enforced=quality.is_enforced, minimum_length=quality.length, minimum_classes=quality.classes
        )
        arguments = [argument for module in modules if module.name == "pam_unix.so" for argument in module.arguments]
        methods = (argument for argument in arguments if argument in _UNIX_METHODS)
        section.set(new_hash=next(methods, section["new_hash"]))
    with section.capture("accepts_empty"):
        auth_modules = pam.read_stack(system, "auth")
        section.set(accepts_empty=pam.accepts_empty(auth_modules))
    return auth_modules


def _add_lockout_fields(system: System, section: SectionBuilder, auth_modules: list[pam.PamModule]) -> None:
    with section.capture("lockout", "lockout_after", "lockout_seconds"):
        module, jail = pam.lockout_module(system, auth_modules), fail2ban.active_jail(system)
        if module and system.path(_SSHD).exists():
            ssh = sshd_config.read_settings(system)
            section.add_gaps(ssh.global_gaps.gaps, "lockout")
            if ssh.values.get("passwordauthentication", "yes") == "yes" and ssh.values.get("usepam", "no") != "yes":
                module = {}  # sshd compares passwords itself, and the PAM module counts nothing
        lockouts = [lockout for lockout in (module, jail.value) if lockout]
        if not module:  # another lockout can only be stricter
            section.add_gaps(jail.gaps, "lockout", "lockout_after", "lockout_seconds")
        limits = [lockout["after"] for lockout in lockouts if lockout["after"] is not None]
        durations = [lockout["seconds"] for lockout in lockouts if lockout["seconds"] is not None]
        section.set(
            lockout=sorted(lockout["name"] for lockout in lockouts),
            lockout_after=min(limits, default=None),
            lockout_seconds=max(durations, default=None),
        )


def _add_sudo(system: System, section: SectionBuilder) -> None:
    sudo = sudoers.users_without_password(system)
    names = set(section.take("sudo_without_password", sudo))
    with section.capture("sudo_without_password"):
        names.update(_doas(system, section))
    with section.capture("sudo_without_password"):
        names.update(pam.trusted_by_su(system))
    section.set(sudo_without_password=sorted(names))
    sources = parse_key_values(read_text(system.path("/etc/nsswitch.conf")), ":").get("sudoers", "")
    if others := sorted(set(sources.partition("#")[0].split()) & {"sss", "ldap"}):
        section.gap(
            "sudo_without_password", reason=f"rules of {', '.join(others)} are not read", source="/etc/nsswitch.conf"
        )


def _doas(system: System, section: SectionBuilder) -> Iterator[str]:
    for file in (system.path("/etc/doas.conf"), *list_files(system.path("/etc/doas.d"), "*.conf")):
        for line in read_text(file).replace("\\\n", " ").splitlines():
            words = [quoted or word for quoted, word in _DOAS_WORD.findall(line) if not word.startswith("#")]
            if words[:1] not in ([], ["permit"], ["deny"]):
                section.gap("sudo_without_password", reason="not understood", source=f"/etc/{file.name}: {words[0]}")
            if words[:1] == ["permit"] and "nopass" in words:
                yield f"doas {_doas_identity(words[1:])}".strip()


def _doas_identity(words: list[str]) -> str:
    """Returns the user or group of a rule: the first word that is no option, and not between the braces of setenv."""
    depth = 0
    for word in words:
        depth += (word == "{") - (word == "}")
        if depth == 0 and word not in _DOAS_OPTIONS:
            return word
    return ""
