"""Whether fail2ban watches logins: its jails for SSH, and whether it runs."""

import re
from typing import Any, Final

from device_agent.host.files import files_in, text_of
from device_agent.host.system import System

_FOLDER: Final = "/etc/fail2ban"
_JAILS: Final = ("DEFAULT", "sshd", "dropbear")
_RUNNING: Final = ("/run/fail2ban/fail2ban.sock", "/run/fail2ban/fail2ban.pid")
_USUAL_TRIES: Final = 5
_USUAL_SECONDS: Final = 600
_TIME: Final = re.compile(r"^(\d{1,6})\s*([smhdw]?)[a-z]*$")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def guard(system: System) -> dict[str, Any]:
    """Name, failures and seconds; empty when no jail for logins is on, or when it does not run on this machine.

    Raises:
        OSError: a file of its settings cannot be read.
    """
    folder = system.path(_FOLDER)
    if not folder.is_dir():
        return {}
    if system.is_live and not any(system.path(place).exists() for place in _RUNNING):
        return {}
    said: dict[str, dict[str, str]] = {name: {} for name in _JAILS}
    # Its own order: what is local comes after what was shipped.
    for name in ("conf", "local"):
        for file in (folder / f"jail.{name}", *files_in(folder / "jail.d", f"*.{name}")):
            _read(text_of(file), said)
    for jail in _JAILS[1:]:
        settings = {**said["DEFAULT"], **said[jail]}
        if settings.get("enabled", "false").lower() in {"true", "yes", "1", "on"}:
            tries = settings.get("maxretry", "")
            return {
                "name": "fail2ban",
                "after": int(tries) if re.fullmatch(r"[0-9]{1,6}", tries) else _USUAL_TRIES,
                "seconds": _seconds(settings.get("bantime", "")),
            }
    return {}


def _read(text: str, said: dict[str, dict[str, str]]) -> None:
    section: dict[str, str] = {}
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            section = said.get(bare[1:-1].strip(), {})
        elif bare and bare[0] not in "#;" and "=" in bare and not line[0].isspace():
            key, _, value = bare.partition("=")
            section[key.strip()] = value.strip()


def _seconds(text: str) -> int | None:
    if text.strip() == "-1":
        return None  # for ever
    match = _TIME.match(text.strip())
    return min(int(match[1]) * _UNITS[match[2]], 1_000_000) if match else _USUAL_SECONDS
