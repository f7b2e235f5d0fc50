"""The SSH server's settings (section `ssh`): as `sshd -T` resolves them where it can run, else from its files."""

import re
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.access import dropbear
from device_agent.collectors.access.sshd_config import (
    ALGORITHMS,
    CONFIG,
    CONFIGS,
    DEFAULTS,
    LOGIN_RESTRICTIONS,
    SshdSettings,
    read_settings,
    sample_of,
)
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import parse_key_values, read_text
from device_agent.host.os_release import read_os_release
from device_agent.host.start_commands import commands_of
from device_agent.host.system import System
from device_agent.host.systemd import enabled_units
from device_agent.host.unit_files import read_unit

_PROGRAMS: Final = ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd")
_SOCKET_GENERATOR: Final = "/usr/lib/systemd/system-generators/sshd-socket-generator"
_SECONDS: Final = 10.0
_MAX_ASKED: Final = 16  # Match blocks for which sshd is asked
# Where distributions keep the options of the command line, which take precedence over the file.
_OPTIONS: Final = (
    ("/etc/default/ssh", "SSHD_OPTS"),
    ("/etc/default/sshd", "SSHD_OPTS"),
    ("/etc/sysconfig/sshd", "OPTIONS"),
    ("/etc/sysconfig/ssh", "SSHD_OPTS"),
    ("/etc/conf.d/sshd", "SSHD_OPTS"),
)
_CONFIG_VARIABLES: Final = ("SSHD_CONFIG", "SSHD_CONFDIR", "cfgfile")  # of OpenRC, in the last of them
_OPTION: Final = re.compile(r"-[46DdeGiqTtV]*([fop])(.*)")
_CRYPTO: Final = re.compile(
    r"(ciphers|macs|kexalgorithms|\w*algorithms|\w*keytypes|rekeylimit|hostkey)[ =]", re.IGNORECASE
)
_METHODS: Final = {"passwordauthentication": "password", "kbdinteractiveauthentication": "keyboard-interactive"}
_RENAMED_ROOT_LOGIN: Final = {"without-password": "prohibit-password"}
_ROOT_LOGIN_VALUES: Final = frozenset({"yes", "no", "prohibit-password", "forced-commands-only"})
# Broken or too short: SHA-1 and MD5, CBC and old stream ciphers, DSA, small groups.
_WEAK: Final = re.compile(
    r"^(3des-cbc|.*-cbc(@.*)?|arcfour.*|blowfish.*|cast128.*|hmac-md5.*|hmac-sha1.*|umac-64.*|hmac-ripemd.*"
    r"|diffie-hellman-group1-sha1|diffie-hellman-group14-sha1|diffie-hellman-group-exchange-sha1|rsa1024-.*"
    r"|ssh-rsa(-cert-v0[01]@openssh\.com)?|ssh-dss.*)$"
)
_TIME: Final = re.compile(r"(\d{1,9})([smhdw]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def collect(system: System) -> Section:
    """Collects the `ssh` section.

    Raises:
        NotApplicableError: no SSH server is installed.
    """
    has_openssh = any(system.path(path).exists() for path in CONFIGS) or any(
        system.path(program).exists() for program in _PROGRAMS
    )
    if not has_openssh:
        of_dropbear = dropbear.collect(system)
        if of_dropbear is None:
            raise NotApplicableError("no SSH server is installed")
        return of_dropbear
    settings = read_settings(system)
    resolved, reason = _run_sshd(system)
    ports = resolved.get("port", "").split() if resolved is not None else settings.ports or ["22"]
    values = dict(resolved) if resolved is not None else {**DEFAULTS, **settings.values}
    restrictions = settings.restrictions if resolved is None else _restrictions_of(resolved)
    section = SectionBuilder(
        server="openssh",
        resolved=resolved is not None,
        ports=sorted({int(port) for port in ports if port.isdecimal() and 0 < int(port[:6]) <= 0xFFFF}),
        **section_of(restricted(values, restrictions)),
        overrides=_overrides(system, settings, resolved),
    )
    section.add_gaps(settings.match_gaps.gaps, "overrides")
    section.add_gaps(settings.global_gaps.gaps, "overrides", *(() if resolved else ("ports", *section_of({}))))
    _add_option_gaps(system, section)
    with section.capture("ports"):
        if of_socket := _ports_of_socket(system):
            section.set(ports=of_socket)
    if resolved is None and not any(system.path(path).is_file() for path in CONFIGS):
        section.gap("overrides", "ports", *section_of({}), reason="there is no configuration file of sshd")
    if resolved is None and "permitrootlogin" not in settings.values and _is_of_old_default(system):
        section.gap("root_login", reason="builds before OpenSSH 7.0, and those of RHEL 7, let root log in")
    weak = weak_algorithms({key: value.lstrip("+^") for key, value in settings.algorithms.items() if value[:1] != "-"})
    if resolved is None and weak:
        section.set(weak_algorithms=weak)  # whatever else the server's version has
    elif resolved is None:
        section.gap("weak_algorithms", reason=f"only the server itself knows the algorithms of its version{reason}")
    else:
        section.set(weak_algorithms=weak_algorithms(resolved))
    return section.build()


def _ports_of_socket(system: System) -> list[int]:
    """Returns the ports on which systemd listens for sshd, which then ignores its own; none where sshd listens."""
    if system.path(_SOCKET_GENERATOR).exists():
        return []  # it makes the socket from sshd's own ports
    sockets = [unit for unit in ("ssh.socket", "sshd.socket") if unit in enabled_units(system)]
    streams = [value for unit in sockets for value in read_unit(system, unit).get("Socket.ListenStream", ())]
    ports = {value.rpartition(":")[2] for value in streams}
    return sorted(int(port) for port in ports if port.isdecimal() and 0 < int(port[:6]) <= 0xFFFF)


def _restrictions_of(resolved: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(resolved[key].split()) for key in LOGIN_RESTRICTIONS if key in resolved}


def restricted(values: Mapping[str, str], restrictions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the settings as the lists of users, groups and methods of authentication restrict them.

    A method of several factors counts as the first: one that begins with a key does not let a password in alone.
    """
    result = dict(values)
    methods = restrictions.get("authenticationmethods", ())
    if methods and "any" not in map(str.lower, methods):
        chains = [[part.partition(":")[0].lower() for part in one.split(",")] for one in methods]
        alone = {chain[0] for chain in chains if not {"publickey", "hostbased", "gssapi-with-mic"}.intersection(chain)}
        for keyword, method in _METHODS.items():
            if method not in alone:
                result[keyword] = "no"
        if not alone and result.get("permitrootlogin", "").lower() == "yes":
            result["permitrootlogin"] = "prohibit-password"
    allowed = [user.partition("@")[0] for user in restrictions.get("allowusers", ())]
    is_listed = any(fnmatchcase("root", user.lstrip("!")) for user in allowed)
    is_denied = any(user in {"root", "*"} for user in restrictions.get("denyusers", ()))
    if is_denied or (allowed and not is_listed):
        result["permitrootlogin"] = "no"
    return result


def _is_of_old_default(system: System) -> bool:
    """Whether the distribution is one whose server lets root log in where no file says otherwise."""
    try:
        release = read_os_release(system)
    except FactsUnavailableError:
        return False
    version = release.get("VERSION_ID", "").partition(".")[0]
    names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return bool(names & {"rhel", "centos", "fedora"}) and release.get("ID") != "fedora" and version in {"5", "6", "7"}


def _overrides(system: System, settings: SshdSettings, resolved: Mapping[str, str] | None) -> list[str]:
    """Returns `Match user bob: passwordauthentication yes` for each setting of a Match block.

    Where sshd can be asked about a connection that meets the criteria, its answer replaces what the file seems to say.
    """
    overrides = []
    for number, block in enumerate(settings.blocks):
        values: Mapping[str, str] = block.values
        sample = sample_of(block.criteria)
        if resolved is not None and sample is not None and number < _MAX_ASKED and values:
            answer, _ = _run_sshd(system, "-C", sample)
            if answer is not None:
                values = {key: answer.get(key, value).lower() for key, value in values.items()}
        overrides += [f"Match {block.title}: {keyword} {value}" for keyword, value in values.items()]
    return overrides


def _add_option_gaps(system: System, section: SectionBuilder) -> None:
    """Adds a gap for each option of the command line that changes a setting or names another file."""
    commands = commands_of(system, "sshd")
    section.add_gaps(commands.gaps, "overrides")
    found = [(words, "sshd") for words in commands.value]
    for path, name in _OPTIONS:
        with section.capture("overrides", source=path):
            values = parse_key_values(read_text(system.path(path)))
            found.append((values.get(name, "").replace('"', " ").replace("'", " ").split(), path))
            config = [value for key in _CONFIG_VARIABLES if (value := values.get(key, "").strip("\"'"))]
            found += [(["-f", value], path) for value in config if value not in {CONFIG, "/etc/ssh"}]
    for words, source in found:
        for option, value in _options_of(words):
            fields = ("ports",) if option == "p" else ("overrides", "ports", *section_of({}))
            fields = ("weak_algorithms",) if option == "o" and _CRYPTO.match(value) else fields
            if option != "f" or value != CONFIG:
                reason = f"options of the command line are not read: -{option} {value}"
                section.gap(*fields, reason=reason, source=source)


def _options_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the options among the arguments of sshd that change its settings, with their values."""
    rest = iter(words)
    return [(match[1], match[2] or next(rest, "")) for word in rest if (match := _OPTION.fullmatch(word))]


def section_of(values: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of the section from the values by keyword (lower case)."""
    root_login = values.get("permitrootlogin", "").lower()
    root_login = _RENAMED_ROOT_LOGIN.get(root_login, root_login)
    return {
        "password_login": _flag(values.get("passwordauthentication")),
        "interactive_login": _flag(values.get("kbdinteractiveauthentication")),
        "root_login": root_login if root_login in _ROOT_LOGIN_VALUES else "unknown",
        "empty_passwords": _flag(values.get("permitemptypasswords")),
        "max_auth_tries": _number(values.get("maxauthtries")),
        "login_grace_seconds": seconds_of(values.get("logingracetime", "")),
        "x11_forwarding": _flag(values.get("x11forwarding")),
    }


def _run_sshd(system: System, *arguments: str) -> tuple[dict[str, str] | None, str]:
    """Returns the settings that `sshd -T` prints, or None and why it could not be asked."""
    program = shutil.which("sshd") or next((path for path in _PROGRAMS if Path(path).exists()), None)
    if not system.is_live or program is None:
        return None, ""
    if not system.is_root_user:
        return None, "; sshd -T needs root"
    try:
        return parse_resolved(run([program, "-T", *arguments], seconds=_SECONDS).stdout), ""
    except ExecuteError as e:
        return None, f"; {e}"


def parse_resolved(text: str) -> dict[str, str]:
    """Parses the output of `sshd -T`: values by keyword (lower case), several ports and users joined with spaces."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "port" or key in LOGIN_RESTRICTIONS:  # a line for each
            values[key] = f"{values.get(key, '')} {value}".strip()
        elif key:
            values.setdefault(key.lower(), value)
    return values


def weak_algorithms(values: Mapping[str, str]) -> list[str]:
    """Returns the weak ciphers, MACs, key exchanges and host keys among resolved settings."""
    names = {name for key in ALGORITHMS for name in values.get(key, "").split(",")}
    return sorted(name for name in names if _WEAK.match(name))


def _flag(value: str | None) -> bool | None:
    return {"yes": True, "no": False}.get((value or "").lower())


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() and len(value) < 7 else None


def seconds_of(text: str) -> int | None:
    """Parses a time in sshd's format (`120`, `2m`, `1h30m`); returns None when malformed or above 1,000,000 s."""
    if not text or len(text) > 32 or not re.fullmatch(f"(?:{_TIME.pattern})+", text, re.IGNORECASE):
        return None
    total = sum(int(number) * _UNITS[unit.lower()] for number, unit in _TIME.findall(text))
    return total if total <= 1_000_000 else None
