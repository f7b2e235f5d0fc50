"""The fail2ban jail that limits failed SSH logins."""

import re
from typing import Any, Final

from device_agent.host.files import list_files, read_text
from device_agent.host.system import System

_FOLDER: Final = "/etc/fail2ban"
_JAILS: Final = ("DEFAULT", "sshd", "dropbear")
_RUN_FILES: Final = ("/run/fail2ban/fail2ban.sock", "/run/fail2ban/fail2ban.pid")
_DEFAULT_RETRIES: Final = 5
_DEFAULT_SECONDS: Final = 600
_TIME: Final = re.compile(r"^(\d{1,6})\s*([smhdw]?)[a-z]*$")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def active_jail(system: System) -> dict[str, Any]:
    """Returns `name`, `after` (failures) and `seconds` (None: forever); empty if no SSH jail is enabled and running.

    Raises:
        OSError: a configuration file cannot be read.
    """
    folder = system.path(_FOLDER)
    if not folder.is_dir():
        return {}
    if system.is_live and not any(system.path(path).exists() for path in _RUN_FILES):
        return {}
    jails: dict[str, dict[str, str]] = {name: {} for name in _JAILS}
    # fail2ban's own order: `.local` files override the distributed `.conf` files.
    for suffix in ("conf", "local"):
        for file in (folder / f"jail.{suffix}", *list_files(folder / "jail.d", f"*.{suffix}")):
            _read(read_text(file), jails)
    for jail in _JAILS[1:]:
        settings = {**jails["DEFAULT"], **jails[jail]}
        if settings.get("enabled", "false").lower() in {"true", "yes", "1", "on"}:
            retries = settings.get("maxretry", "")
            return {
                "name": "fail2ban",
                "after": int(retries) if re.fullmatch(r"[0-9]{1,6}", retries) else _DEFAULT_RETRIES,
                "seconds": _seconds(settings.get("bantime", "")),
            }
    return {}


def _read(text: str, jails: dict[str, dict[str, str]]) -> None:
    section: dict[str, str] = {}
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            section = jails.get(bare[1:-1].strip(), {})
        elif bare and bare[0] not in "#;" and "=" in bare and not line[0].isspace():
            key, _, value = bare.partition("=")
            section[key.strip()] = value.strip()


def _seconds(text: str) -> int | None:
    if text.strip() == "-1":
        return None  # a permanent ban
    match = _TIME.match(text.strip())
    return min(int(match[1]) * _UNITS[match[2]], 1_000_000) if match else _DEFAULT_SECONDS
