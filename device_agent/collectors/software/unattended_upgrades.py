"""Detects whether updates are installed automatically: configured, and started by a timer or cron that is on."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from device_agent.collectors.software.apt_conf import AptSettings, read_settings
from device_agent.collectors.software.config_files import matching_files
from device_agent.collectors.software.sources_rpm import parse_sections
from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import LISTS, AptRelease, read_release
from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.os_release import read_os_release
from device_agent.host.packages import package_manager
from device_agent.host.reading import GapRecorder, ReadingGap
from device_agent.host.system import System, process_names
from device_agent.host.systemd import Systemd, is_booted
from device_agent.host.unit_files import read_unit, start_commands

_UNIT_FOLDERS: Final = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_NOT_OPENED: Final = frozenset({"disabled", "masked", "masked-runtime", "bad", ""})
_APT_INSTALLERS: Final = ("/usr/bin/unattended-upgrade", "/usr/bin/unattended-upgrades")
_APT_TIMERS: Final = ("apt-daily.timer", "apt-daily-upgrade.timer")  # fetch the lists, and install
_APT_CRON: Final = ("/etc/cron.daily/apt-compat", "/etc/cron.daily/apt")
_INTERVAL: Final = re.compile(r"(\d+)[smhd]?", re.ASCII)
_EVERY_PACKAGE: Final = frozenset({"", "*", ".", ".*", "^.*", ".*$", "^.*$", ".+", "^.+$", "^"})
_ORIGIN_KEYS: Final = {
    **dict.fromkeys(("o", "origin"), "origin"),
    **dict.fromkeys(("l", "label"), "label"),
    **dict.fromkeys(("a", "archive", "suite"), "suite"),
    **dict.fromkeys(("n", "codename"), "codename"),
}
_DNF_CONFIGS: Final = ("/usr/share/dnf5/dnf5-plugins/automatic.conf", "/etc/dnf/automatic.conf")
_DNF_TIMERS: Final = ("dnf-automatic.timer", "dnf5-automatic.timer")
_DNF_INSTALL_TIMER: Final = "dnf-automatic-install.timer"
_YUM_CRON: Final = "/etc/cron.daily/0yum-daily.cron"
_YUM_CONF: Final = "/etc/yum/yum-cron.conf"
_ZYPPER_TIMERS: Final = ("os-update.timer", "transactional-update.timer")
_ZYPPER_CRON: Final = tuple(f"/etc/cron.{often}/opensuse.org-online_update" for often in ("daily", "weekly", "monthly"))
_IMAGE_UNITS: Final = ("zincati.service", "bootc-fetch-apply-updates.timer")
_CRON: Final = (
    "/etc/crontabs/*",
    "/var/spool/cron/crontabs/*",
    "/etc/periodic/daily/*",
    "/etc/periodic/weekly/*",
    "/etc/cron.d/*",
)
_CRON_OF_OTHERS: Final = (
    *("/etc/crontab", "/var/spool/cron/*", "/var/spool/cron/tabs/*"),
    *(f"/etc/cron.{often}/*" for often in ("hourly", "daily", "weekly", "monthly")),
)
_CRON_DAEMONS: Final = frozenset({"cron", "crond", "cronie", "dcron", "fcron", "anacron"})
_CRON_STARTS: Final = (
    *("/etc/runlevels/*", "/etc/rc.d", "/etc/rc[2-5].d", "/etc/init.d", "/etc/systemd/system/*.wants"),
)
_YES: Final = frozenset({"yes", "true", "1", "on"})
_UPGRADERS: Final = frozenset({"apk", "opkg"})
_COMMANDS: Final = {
    **dict.fromkeys(
        ("apt", "apt-get", "aptitude"), frozenset({"upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade"})
    ),
    **dict.fromkeys(
        ("dnf", "dnf5", "yum", "microdnf"), frozenset({"upgrade", "update", "upgrade-minimal", "update-minimal"})
    ),
    "zypper": frozenset({"up", "update", "patch", "dup", "dist-upgrade"}),
}
_SIMULATED: Final = frozenset({"-s", "--simulate", "--dry-run", "--noaction"})


def is_unattended(system: System, scheme: str) -> bool:
    """Whether the package manager's own mechanism (or a cron job for apk and opkg) installs updates.

    Raises:
        FactsUnavailableError: a configuration was not understood, or a cron job of the operator's upgrades packages.
        OSError, ExecuteError: it cannot be read, or systemd does not answer.
    """
    if scheme not in {"deb", "rpm"}:
        return _cron_upgrades(system)
    manager = package_manager(system, scheme) if scheme == "rpm" else "apt"
    if {"apt": _apt, "dnf": _dnf, "zypper": _zypper, "rpm-ostree": _rpm_ostree}[manager](system):
        return True
    if _cron_runs(system):
        _refuse_own_jobs(system)
    return False


def _refuse_own_jobs(system: System) -> None:
    """Raises FactsUnavailableError for a cron job that upgrades packages: whether it has an effect is not known."""
    gaps = GapRecorder()
    for file, text in matching_files(system, (*_CRON, *_CRON_OF_OTHERS), gaps):
        if file not in {*_APT_CRON, *_ZYPPER_CRON} and any(map(_upgrades_by_command, text.splitlines())):
            raise FactsUnavailableError(f"a cron job upgrades packages, and its effect is not known ({file})")
    _raise_gaps(gaps.gaps)


def _upgrades_by_command(line: str) -> bool:
    words = [word.rpartition("/")[2] for word in re.split(r"[\s;&|()'\"`]+", line.partition("#")[0])]
    if _SIMULATED.intersection(words):
        return False
    is_command = any(not _COMMANDS.get(word, frozenset()).isdisjoint(words) for word in words)
    return is_command or not {"unattended-upgrade", "unattended-upgrades"}.isdisjoint(words)


def _raise_gaps(gaps: Iterable[ReadingGap]) -> None:
    for gap in gaps:
        raise FactsUnavailableError(f"{gap.reason} ({gap.source})" if gap.source else gap.reason)


def _is_on(system: System, unit: str) -> bool:
    """Whether a unit is started with the system, and runs where systemd does."""
    if is_booted(system):
        shown = Systemd().show(unit, "LoadState", "UnitFileState", "ActiveState")
        is_opened = shown["LoadState"] == "loaded" and shown["UnitFileState"] not in _NOT_OPENED
        return is_opened and shown["ActiveState"] == "active"
    files = [system.path(f"{folder}/{unit}") for folder in _UNIT_FOLDERS]
    first = next((path for path in files if path.is_symlink() or path.exists()), None)
    if first is None or (first.is_symlink() and first.readlink().name == "null"):
        return False
    times = [values for key, values in read_unit(system, unit).items() if key.startswith("Timer.On")]
    if times and not any(times):
        return False  # a drop-in empties them, and systemd refuses a timer without any
    return any(path.name == unit for folder in _UNIT_FOLDERS for path in system.path(folder).glob(f"*.wants/{unit}"))


def _has_systemd(system: System) -> bool:
    return any(system.path(folder).is_dir() for folder in _UNIT_FOLDERS)


def _cron_runs(system: System) -> bool:
    if system.is_live:
        return bool(_CRON_DAEMONS.intersection(process_names(system).values()))
    names = [path.name for start in _CRON_STARTS for path in system.root.glob(f"{start.lstrip('/')}/*")]
    plain = {re.sub(r"^S\d\d", "", name).removesuffix(".service").removeprefix("busybox-") for name in names
             if not name.startswith("K")}  # fmt: skip
    return bool(_CRON_DAEMONS & plain)


def _apt(system: System) -> bool:
    if not any(system.path(program).is_file() for program in _APT_INSTALLERS):
        return False
    reading = read_settings(system)
    _raise_gaps(reading.gaps)
    settings = reading.value
    if settings.values.get("apt::periodic::enable", "1").strip() == "0":
        return False
    jobs = ("apt::periodic::update-package-lists", "apt::periodic::unattended-upgrade")
    if not all(_is_interval_on(settings.values.get(name, "0").strip()) for name in jobs):
        return False
    if _has_systemd(system):
        is_started = all(_is_on(system, timer) for timer in _APT_TIMERS)
    else:
        is_started = any(system.path(path).is_file() for path in _APT_CRON) and _cron_runs(system)
    return is_started and _may_install(system, settings)


def _is_interval_on(text: str) -> bool:
    match = _INTERVAL.fullmatch(text or "0")
    if match is None and text != "always":
        raise FactsUnavailableError(f"not an interval of apt's: {text[:32]}")
    return match is None or int(match[1]) > 0


def _may_install(system: System, settings: AptSettings) -> bool:
    """Whether unattended-upgrade's origins include the one of the security updates (any, where there is none)."""
    origins = [_of_allowed_origin(item) for item in settings.lists.get("unattended-upgrade::allowed-origins", ())]
    origins += [_of_pattern(item) for item in settings.lists.get("unattended-upgrade::origins-pattern", ())]
    excluded = settings.lists.get("unattended-upgrade::package-blacklist", ())
    if not origins or _EVERY_PACKAGE.intersection(item.strip() for item in excluded):
        return False
    files = [*list_files(system.path(LISTS), "*_InRelease"), *list_files(system.path(LISTS), "*_Release")]
    releases = [read_release(file) for file in files]
    if not releases:
        raise FactsUnavailableError("no package list says which origins there are: run apt-get update")
    wanted = [release for release in releases if release.is_security] or releases
    distribution = read_os_release(system)
    return any(_matches(origin, release, distribution) for origin in origins for release in wanted)


def _of_allowed_origin(item: str) -> dict[str, str]:
    origin, _, suite = item.rpartition(":")
    return {"origin": origin, "suite": suite}


def _of_pattern(item: str) -> dict[str, str]:
    if item.strip() == "*":
        return {}
    pairs = [part.partition("=") for part in item.split(",")]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _matches(origin: dict[str, str], release: AptRelease, distribution: dict[str, str]) -> bool:
    """Whether a Release file matches; sites and components are in other files, and match nothing here."""
    names = {
        "${distro_id}": distribution.get("ID", "").capitalize(),
        "${distro_codename}": distribution.get("VERSION_CODENAME", ""),
    }
    for key, wanted in origin.items():
        attribute = _ORIGIN_KEYS.get(key)
        pattern = wanted
        for variable, value in names.items():
            pattern = pattern.replace(variable, value)
        if attribute is None or not fnmatchcase(getattr(release, attribute), pattern):
            return False
    return True


def _dnf(system: System) -> bool:
    if _is_on(system, _DNF_INSTALL_TIMER):
        return True
    gaps = GapRecorder()
    commands: dict[str, str] = {}
    for file, text in matching_files(system, _DNF_CONFIGS, gaps):
        commands.update(parse_sections(text, gaps, file).get("commands", {}))
    _raise_gaps(gaps.gaps)
    is_applied = commands.get("apply_updates", "no").lower() in _YES
    return _yum_cron(system) or any(
        _is_on(system, timer) and _installs(system, timer, is_applied=is_applied) for timer in _DNF_TIMERS
    )


def _installs(system: System, timer: str, *, is_applied: bool) -> bool:
    """Whether the service of a timer installs: its options take precedence over the file."""
    commands = start_commands(system, timer.replace(".timer", ".service"))
    options = {word for words in commands for word in words}
    return "--no-installupdates" not in options and (is_applied or "--installupdates" in options)


def _yum_cron(system: System) -> bool:
    if not system.path(_YUM_CRON).is_file() or not _is_on(system, "yum-cron.service"):
        return False
    gaps = GapRecorder()
    commands = parse_sections(read_text(system.path(_YUM_CONF)), gaps, _YUM_CONF).get("commands", {})
    _raise_gaps(gaps.gaps)
    return commands.get("apply_updates", "no").lower() in _YES and _cron_runs(system)


def _zypper(system: System) -> bool:
    if any(_is_on(system, timer) for timer in _ZYPPER_TIMERS):
        return True
    return any(system.path(path).exists() for path in _ZYPPER_CRON) and _cron_runs(system)


def _rpm_ostree(system: System) -> bool:
    if any(_is_on(system, unit) for unit in _IMAGE_UNITS):
        return True
    policy = parse_key_values(read_text(system.path("/etc/rpm-ostreed.conf"))).get("AutomaticUpdatePolicy", "none")
    return policy in {"stage", "apply"} and _is_on(system, "rpm-ostreed-automatic.timer")


def _cron_upgrades(system: System) -> bool:
    gaps = GapRecorder()
    found = False
    for file, text in matching_files(system, _CRON, gaps):
        is_started = "/periodic/" not in file or system.path(file).stat().st_mode & 0o111
        found = found or bool(is_started and any(_upgrades(line) for line in text.splitlines()))
    if not found:
        _raise_gaps(gaps.gaps)
    return found and _cron_runs(system)


def _upgrades(line: str) -> bool:
    fields = line.partition("#")[0].split()
    is_upgrader = any(field.rpartition("/")[2] in _UPGRADERS for field in fields)
    return is_upgrader and "upgrade" in fields and not _SIMULATED.intersection(fields)
