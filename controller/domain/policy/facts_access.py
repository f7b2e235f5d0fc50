"""Facts about access: accounts, passwords, lockout, the SSH server."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.sections.access import AccessSection, SshSection

# Fact: its type, its section's field, its meaning.
_ACCESS: Final[Mapping[str, tuple[str, str, str]]] = {
    "account_count": ("int", "accounts", "number of accounts in passwd"),
    "password_account_count": ("int", "password_accounts", "accounts with a password"),
    "empty_password_accounts": ("list(string)", "empty_passwords", "accounts whose password is empty"),
    "root_equal_accounts": ("list(string)", "root_equals", "other accounts than root with the user id 0"),
    "password_hash_algorithms": ("list(string)", "hash_algorithms", "hash algorithms of the passwords in use"),
    "weak_hash_accounts": ("list(string)", "weak_hashes", "accounts with a weak password hash: MD5, DES"),
    "never_expiring_accounts": ("list(string)", "never_expiring", "accounts whose password never expires"),
    "new_password_hash": ("string", "new_hash", "hash algorithm of new passwords, or empty"),
    "password_max_days": ("int", "max_days", "PASS_MAX_DAYS of login.defs; -1 and 99999: never"),
    "password_min_days": ("int", "min_days", "PASS_MIN_DAYS of login.defs"),
    "password_warn_days": ("int", "warn_days", "PASS_WARN_AGE of login.defs"),
    "password_quality_enforced": ("bool", "quality_enforced", "whether PAM refuses weak new passwords"),
    "password_min_length": ("int", "minimum_length", "shortest new password that PAM accepts"),
    "password_min_classes": ("int", "minimum_classes", "character classes that PAM requires in a new password"),
    "empty_passwords_accepted": ("bool", "accepts_empty", "whether PAM accepts empty passwords (nullok)"),
    "sudo_without_password": (
        "list(string)",
        "sudo_without_password",
        "users and groups that become root by sudo or doas without a password",
    ),
    "login_lockout": ("list(string)", "lockout", "lockout after failed logins: faillock, tally2, fail2ban"),
    "lockout_after": ("int", "lockout_after", "failed logins before a lockout; the lowest of several"),
    "lockout_seconds": ("int", "lockout_seconds", "length of a lockout; 0 until an operator unlocks"),
}
_SSH: Final[Mapping[str, tuple[str, str, str]]] = {
    "ssh_server": ("string", "server", "openssh or dropbear"),
    "ssh_resolved": ("bool", "resolved", "whether the settings were read from the server itself, as by `sshd -T`"),
    "ssh_ports": ("list(int)", "ports", "configured ports of the SSH server"),
    "ssh_password_login": ("bool", "password_login", "whether SSH accepts passwords"),
    "ssh_interactive_login": (
        "bool",
        "interactive_login",
        "whether SSH accepts keyboard-interactive authentication, as PAM uses for passwords",
    ),
    "ssh_root_login": ("string", "root_login", "yes, no, prohibit-password or forced-commands-only"),
    "ssh_empty_passwords": ("bool", "empty_passwords", "whether SSH accepts empty passwords"),
    "ssh_max_auth_tries": ("int", "max_auth_tries", "authentication attempts in one connection"),
    "ssh_grace_seconds": ("int", "login_grace_seconds", "time to log in; 0: no limit"),
    "ssh_x11_forwarding": ("bool", "x11_forwarding", "whether X11 is forwarded"),
    "ssh_weak_algorithms": ("list(string)", "weak_algorithms", "outdated algorithms that the server accepts"),
    "ssh_overrides": ("list(string)", "overrides", "settings in Match blocks, for some connections only"),
}

CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    **{name: (kind, "access", meaning) for name, (kind, _, meaning) in _ACCESS.items()},
    "failed_login_sources": ("list(string)", "access", "sources of at least 10 failed logins in the last day"),
    "failed_logins_most": (
        "int",
        "access",
        "failed logins of the most frequent source, rounded down to 10, 100, 1000, ...",
    ),
    **{name: (kind, "ssh", meaning) for name, (kind, _, meaning) in _SSH.items()},
}
# Facts that are complete even if a list of their section is truncated.
COMPLETE: Final = frozenset(name for name, (kind, _, _) in CATALOGUE.items() if not kind.startswith("list"))
# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (field,) for name, (_, field, _) in {**_ACCESS, **_SSH}.items()},
    "failed_login_sources": ("failed_logins",),
    "failed_logins_most": ("failed_logins",),
}
# Numbers of which a part of the entries shows a lower bound.
GROWING: Final = frozenset({"failed_logins_most"})


def _fields(section: AccessSection | SshSection, names: Mapping[str, tuple[str, str, str]]) -> dict[str, Any]:
    values = {name: getattr(section, field) for name, (_, field, _) in names.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _access(section: AccessSection) -> dict[str, Any]:
    failed = section.failed_logins
    return {
        **_fields(section, _ACCESS),
        "failed_login_sources": None if failed is None else [login.source for login in failed],
        "failed_logins_most": None if failed is None else max((login.at_least for login in failed), default=0),
    }


def _ssh(section: SshSection) -> dict[str, Any]:
    values = _fields(section, _SSH)
    return {**values, "ssh_root_login": None if section.root_login == "unknown" else section.root_login}


READERS: Final[tuple[tuple[str, Any], ...]] = (("access", _access), ("ssh", _ssh))
