"""Security updates that are waiting, as the package manager itself would install them."""

import time
from typing import Any, Final

from device_agent.apt import apt_get, lists_refreshed_at, upgrades
from device_agent.collectors.base import CannotTellError, Section
from device_agent.collectors.packages import manager_of, scheme_of
from device_agent.execute import ExecuteError, run
from device_agent.system import System

# Older lists do not know of newer updates, so that "nothing pending" would mean nothing.
MAX_LISTS_AGE_DAYS: Final = 7
_APT_SECONDS: Final = 50.0
_DAY: Final = 86_400
# Whoever marks a needed reboot on Debian and Ubuntu; without either, a missing mark says nothing.
_REBOOT_MARKERS: Final = (
    "/usr/share/update-notifier/notify-reboot-required",
    "/etc/kernel/postinst.d/unattended-upgrades",
)


def collect(system: System) -> Section:
    """The `updates` section; apt only, any other manager is `unknown`.

    Since when an update was waiting apt does not keep, so `oldest_security_days` stays unknown.
    """
    scheme = scheme_of(system)
    if scheme is None:
        raise CannotTellError("no known package manager")
    if scheme != "deb":
        raise CannotTellError(f"pending updates of {manager_of(scheme)} cannot be read yet")
    _check_lists(system)
    try:
        argv = apt_get(system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade")
        pending = [upgrade for upgrade in upgrades(run(argv, seconds=_APT_SECONDS).out) if upgrade.is_security]
    except ExecuteError as e:
        raise CannotTellError(str(e)) from e
    packages = sorted({(upgrade.name, upgrade.old, upgrade.new) for upgrade in pending})
    section: dict[str, Any] = {
        "state": "ok",
        "manager": "apt",
        "security_pending": len(packages),
        "oldest_security_days": None,
        "reboot_required": _reboot_required(system),
        "packages": [{"name": name, "installed": old, "candidate": new} for name, old, new in packages],
    }
    return section


def _check_lists(system: System) -> None:
    refreshed = lists_refreshed_at(system)
    if refreshed is None:
        raise CannotTellError("the package lists were never fetched: run apt-get update")
    if time.time() - refreshed > MAX_LISTS_AGE_DAYS * _DAY:
        day = time.strftime("%Y-%m-%d", time.gmtime(refreshed))
        raise CannotTellError(f"the package lists are of {day}: run apt-get update")


def _reboot_required(system: System) -> bool | None:
    if system.path("/run/reboot-required").exists() or system.path("/var/run/reboot-required").exists():
        return True
    return False if any(system.path(place).exists() for place in _REBOOT_MARKERS) else None
