"""Upgrades one installed package, or all that have a security update, to what their distribution offers."""

import shutil
from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    flag,
    only,
    package_name,
)
from device_agent.collectors.software.pending_updates import dnf_security
from device_agent.host.apt import UNATTENDED, apt_get, upgrades
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import installed, manager_of, scheme_of
from device_agent.host.system import System

_UPDATE_SECONDS: Final = 300.0
_INSTALL_SECONDS: Final = 1800.0
_MAX_SHOWN: Final = 40  # packages named beforehand
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
# By the kind of package: the program, how its lists are fetched, how one package is upgraded.
_NAMED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "rpm": (("dnf",), ("dnf", "-q", "makecache"), ("dnf", "-q", "-y", "upgrade", "--")),
    "apk": (("apk",), ("apk", "-q", "update"), ("apk", "-q", "upgrade", "--")),
    "opkg": (("opkg",), ("opkg", "update"), ("opkg", "upgrade")),
}
_DNF_SECURITY: Final = ("dnf", "-q", "-y", "upgrade", "--security")


class UpgradePackage:
    """`package.upgrade {name}` or `{security: true}`: only what is installed, never a new package by itself."""

    # Killed in the middle, the package manager may need a person: it is reported, not tried again.
    is_repeatable = False

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """Either `name`, or `security`, which is true."""
        if "security" not in params:
            package_name(params)
            return
        only(params, "security")
        if not flag(params, "security"):
            raise InvalidParamsError("security: true, or a name instead")

    def plan(self, params: Params) -> ActionPlan:
        """Find the package; whether there is a newer one is known only after its lists were fetched."""
        scheme = scheme_of(self._system)
        manager = manager_of(scheme) if scheme else "this system"
        if scheme is None or (scheme != "deb" and not self._system.is_live) or not self._has_program(scheme):
            raise ActionError(f"packages of {manager} cannot be upgraded here")
        if self._system.is_live and not self._system.is_root_user:
            raise ActionError("needs root")
        if "security" in params:
            return self._plan_security(scheme)
        name = package_name(params)
        _, fetch, upgrade = _NAMED.get(scheme, ((), ("apt-get", "update"), ("apt-get", "install", "--only-upgrade")))
        return ActionPlan(was={"was": self._version(name)}, would=f"{' '.join(fetch)}; {' '.join((*upgrade, name))}")

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Fetch the lists, then upgrade."""
        del was
        scheme = scheme_of(self._system)
        try:
            if scheme == "deb":
                self._apt(params)
            elif "security" in params:
                run(_DNF_SECURITY, seconds=_INSTALL_SECONDS)
            else:
                _, fetch, upgrade = _NAMED[str(scheme)]
                run(fetch, seconds=_UPDATE_SECONDS)
                run([*upgrade, package_name(params)], seconds=_INSTALL_SECONDS)
        except ExecuteError as e:
            raise ActionError(str(e)) from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """The version is another one; no security update waits."""
        if "security" in params:
            left = self._waiting()
            return Verification(not left, {"is": f"{len(left)} security updates wait"})
        now = self._version(package_name(params))
        return Verification(now != was.get("was"), {"is": now})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """A package manager cannot go back by itself."""
        del params
        return f"no newer version of it may be offered; it was {was.get('was', 'unknown')}"

    def _plan_security(self, scheme: str) -> ActionPlan:
        if scheme not in {"deb", "rpm"}:
            raise ActionError(f"{manager_of(scheme)} does not say which updates are for security: name the packages")
        waiting = self._waiting()
        names = " ".join(waiting[:_MAX_SHOWN]) + (" ..." if len(waiting) > _MAX_SHOWN else "")
        # What waits may be more once the lists are fetched, so that nothing waiting now is no reason to do nothing.
        would = f"fetch the lists, then upgrade what is for security; now: {names or 'none known'}"
        return ActionPlan(was={"was": f"{len(waiting)} security updates wait"}, would=would)

    def _apt(self, params: Params) -> None:
        run(apt_get(self._system, "update"), seconds=_UPDATE_SECONDS, environment=UNATTENDED)
        names = self._waiting() if "security" in params else [package_name(params)]
        if names:
            upgrade = apt_get(self._system, *_QUIET, "--only-upgrade", "install", "--", *names)
            run(upgrade, seconds=_INSTALL_SECONDS, environment=UNATTENDED)

    def _waiting(self) -> list[str]:
        """Packages with a security update, as their manager knows it now."""
        try:
            if scheme_of(self._system) == "deb":
                done = run(apt_get(self._system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"))
                return sorted({one.name for one in upgrades(done.out) if one.is_security})
            out = run(["dnf", "-q", "updateinfo", "list", "--updates", "--security"], seconds=_UPDATE_SECONDS).out
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        return sorted({one.name for one in dnf_security(out, {})[0]})

    @staticmethod
    def _has_program(scheme: str) -> bool:
        return shutil.which("apt-get" if scheme == "deb" else _NAMED[scheme][0][0]) is not None

    def _version(self, name: str) -> str:
        package = installed(self._system, name)
        if package is None:
            raise ActionError(f"package {name} is not installed")
        return package.version
