"""Upgrades one installed package to what its distribution offers."""

import shutil
from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import ActionError, Params, Plan, Verified, package_name
from device_agent.apt import UNATTENDED, apt_get
from device_agent.collectors.packages import installed, manager_of, scheme_of
from device_agent.execute import ExecuteError, run
from device_agent.system import System

_UPDATE_SECONDS: Final = 300.0
_INSTALL_SECONDS: Final = 1800.0
# Configuration that somebody changed is kept; a lock that another apt holds is waited for.
_QUIET: Final = (
    "-y",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=60",
)


class UpgradePackage:
    """`package.upgrade {name}`: the newest version of a package that is installed; never installs a new one."""

    # Killed in the middle, the package manager may need a person: it is reported, not tried again.
    is_repeatable = False

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """One parameter, `name`."""
        package_name(params)

    def plan(self, params: Params) -> Plan:
        """Find the package; whether there is a newer one is known only after its lists were fetched."""
        name = package_name(params)
        scheme = scheme_of(self._system)
        if scheme != "deb" or shutil.which("apt-get") is None:
            raise ActionError(f"packages of {manager_of(scheme) if scheme else 'this system'} cannot be upgraded yet")
        if self._system.is_live and not self._system.is_root_user:
            raise ActionError("needs root")
        return Plan(was={"was": self._version(name)}, would=f"apt-get update; apt-get install --only-upgrade {name}")

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Fetch the lists, then upgrade."""
        del was
        name = package_name(params)
        try:
            run(apt_get(self._system, "update"), seconds=_UPDATE_SECONDS, environment=UNATTENDED)
            upgrade = apt_get(self._system, *_QUIET, "--only-upgrade", "install", "--", name)
            run(upgrade, seconds=_INSTALL_SECONDS, environment=UNATTENDED)
        except ExecuteError as e:
            raise ActionError(str(e)) from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verified:
        """The version is another one."""
        now = self._version(package_name(params))
        return Verified(now != was.get("was"), {"is": now})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """A package manager cannot go back by itself."""
        del params
        return f"no newer version of it may be offered; it was {was.get('was', 'unknown')}"

    def _version(self, name: str) -> str:
        package = installed(self._system, name)
        if package is None:
            raise ActionError(f"package {name} is not installed")
        return package.version
