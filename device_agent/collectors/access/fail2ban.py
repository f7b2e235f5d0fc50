"""The fail2ban jail that limits failed SSH logins, from the files that fail2ban itself reads and in its order."""

import configparser
import re
from collections.abc import Iterator
from typing import Any, Final

from device_agent.collectors.system.inits import detect_services
from device_agent.errors import FactsUnavailableError
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System, process_names
from device_agent.host.systemd import enabled_units, has_unit

_FOLDER: Final = "/etc/fail2ban"
_PROGRAMS: Final = ("/usr/bin/fail2ban-server", "/usr/sbin/fail2ban-server", "/usr/local/bin/fail2ban-server")
_PROCESSES: Final = ("fail2ban", "f2b/")  # it renames its first thread
_INCLUDES: Final = "INCLUDES"
_FILTERS: Final = frozenset({"sshd", "dropbear"})
_MAX_DEPTH: Final = 8  # nested includes
_MAX_SECONDS: Final = 1_000_000
_DEFAULT_RETRIES: Final = "5"
_DEFAULT_TIME: Final = "10m"
_TIME: Final = re.compile(r"(\d{1,9})\s*([a-z]*)\s*", re.ASCII)
_UNITS: Final = {
    **dict.fromkeys(("", "s", "ss", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "mi", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hh", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "dd", "day", "days"), 86_400),
    **dict.fromkeys(("w", "we", "ww", "week", "weeks"), 604_800),
    **dict.fromkeys(("mo", "mon", "month", "months", "y", "ye", "yy", "year", "years"), _MAX_SECONDS),
}


def active_jail(system: System) -> Reading[dict[str, Any]]:
    """Returns `name`, `after` (failures) and `seconds` (None: forever); empty if no SSH jail is enabled and running."""
    gaps = GapRecorder()
    if not system.path(_FOLDER).is_dir() or not _is_in_use(system):
        return Reading({})
    jails = configparser.ConfigParser()
    jails.read_dict(_merged(system, gaps))
    of_jails = GapRecorder()
    found: dict[str, Any] = {}
    for name in jails.sections():
        with of_jails.capture(f"{_FOLDER}: [{name}]"):
            found = found or _ssh_jail(jails, name)
    if not found:  # one jail is enough
        gaps.take(of_jails.complete(found))
    return gaps.complete(found)


def _is_in_use(system: System) -> bool:
    if system.is_live:
        return any(name.startswith(_PROCESSES) for name in process_names(system).values())
    if not any(system.path(path).exists() for path in _PROGRAMS):
        return False
    return not system.is_image or _starts(system)


def _starts(system: System) -> bool:
    """Whether an image starts fail2ban."""
    if has_unit(system, "fail2ban.service"):
        return "fail2ban.service" in enabled_units(system)
    found = detect_services(system)
    return found is not None and found[1].get("fail2ban", (False, False))[0]


def _parser() -> configparser.ConfigParser:
    # As fail2ban constructs its own: a duplicate or a line without a section is an error, at which it does not start.
    # Each file's default section is kept apart from its others until all are merged.
    return configparser.ConfigParser(inline_comment_prefixes=";", default_section="")


def _merged(system: System, gaps: GapRecorder) -> dict[str, dict[str, str]]:
    """Returns all sections; the files override each other in the order `.conf`, then `.local`."""
    merged: dict[str, dict[str, str]] = {}
    budget = IncludeBudget(system, _MAX_DEPTH)
    for suffix in ("conf", "local"):
        paths = [f"{_FOLDER}/jail.{suffix}"]
        with gaps.capture(f"{_FOLDER}/jail.d"):
            files = budget.files_in(system.path(f"{_FOLDER}/jail.d"), f"*.{suffix}")
            paths += [f"{_FOLDER}/jail.d/{file.name}" for file in files]
        for path in paths:
            for one in _with_includes(system, path, gaps, budget):
                _merge(merged, one)
    return merged


def _with_includes(
    system: System, path: str, gaps: GapRecorder, budget: IncludeBudget, above: tuple[str, ...] = ()
) -> Iterator[configparser.ConfigParser]:
    """Yields what a file includes before itself, the file, and what it includes after itself."""
    if path in above or not system.path(path).exists():  # fail2ban passes over both
        return
    parser = _parser()
    includes: dict[str, list[str]] = {"before": [], "after": []}
    try:
        parser.read_string(budget.text(system.path(path), len(above)), path)
        for key, paths in includes.items():
            listed = parser.get(_INCLUDES, key, raw=True, fallback="").split("\n")
            paths += [one if one.startswith("/") else f"{path.rpartition('/')[0]}/{one}" for one in listed if one]
    except configparser.Error as e:
        gaps.add(f"not understood: {type(e).__name__}", path)
        return
    except (OSError, ValueError, FactsUnavailableError) as e:
        gaps.add(str(e), path)
        return
    for one in includes["before"]:
        yield from _with_includes(system, one, gaps, budget, (*above, path))
    yield parser
    for one in includes["after"]:
        yield from _with_includes(system, one, gaps, budget, (*above, path))


def _merge(merged: dict[str, dict[str, str]], parser: configparser.ConfigParser) -> None:
    for name in parser.sections():
        if name == _INCLUDES:
            continue
        section = merged.setdefault(name, {})
        if name != configparser.DEFAULTSECT:
            section.update({f"known/{key}": value for key, value in section.items() if not key.startswith("known/")})
        section.update(parser.items(name, raw=True))


def _ssh_jail(jails: configparser.ConfigParser, name: str) -> dict[str, Any]:
    """Returns the limits of a jail; empty if it is off, is not for SSH, or does nothing.

    Raises:
        ValueError: a setting of it is not understood.
    """

    def setting(key: str, default: str) -> str:
        try:
            return jails.get(name, key, vars={"__name__": name, "fail2ban_version": ""}, fallback=default).strip()
        except configparser.Error as e:
            raise ValueError(f"{key} is not understood") from e

    enabled = setting("enabled", "false").lower()
    if enabled not in jails.BOOLEAN_STATES:
        raise ValueError(f"not a truth value: {enabled[:32]}")
    if not jails.BOOLEAN_STATES[enabled]:
        return {}
    if setting("filter", name).partition("[")[0].strip() not in _FILTERS or not setting("action", "default"):
        return {}
    retries = setting("maxretry", _DEFAULT_RETRIES)
    if not re.fullmatch(r"[0-9]{1,6}", retries):
        raise ValueError(f"not a number of failures: {retries[:32]}")
    return {"name": "fail2ban", "after": int(retries), "seconds": _seconds(setting("bantime", _DEFAULT_TIME))}


def _seconds(text: str) -> int | None:
    """Returns seconds such as those of `1d 12h`; None for a permanent ban."""
    if re.fullmatch(r"-\d+", text):
        return None
    parts = list(_TIME.finditer(text.lower()))
    if not parts or "".join(part[0] for part in parts) != text.lower() or any(part[2] not in _UNITS for part in parts):
        raise ValueError(f"not a time: {text[:32]}")
    return min(sum(int(part[1]) * _UNITS[part[2]] for part in parts), _MAX_SECONDS)
