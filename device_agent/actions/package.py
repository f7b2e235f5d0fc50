"""`package.upgrade`: upgrades an installed package, or all with a security update, from the distribution."""

import shutil
from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    Verification,
    bool_param,
    package_name,
    reject_unknown_params,
)
from device_agent.collectors.software.pending_rpm import dnf_security
from device_agent.host.apt import UNATTENDED, apt_get, upgrades
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import installed, package_manager, package_scheme
from device_agent.host.system import System

_UPDATE_SECONDS: Final = 300.0
_INSTALL_SECONDS: Final = 1800.0
_MAX_SHOWN: Final = 40  # packages named in a plan
# Changed configuration files stay; apt waits for the lock of another apt.
_QUIET: Final = (
    "-y",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=60",
)
# By package scheme: the program, the command that fetches its lists, and the command that upgrades one package.
_COMMANDS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "rpm": (("dnf",), ("dnf", "-q", "makecache"), ("dnf", "-q", "-y", "upgrade", "--")),
    "apk": (("apk",), ("apk", "-q", "update"), ("apk", "-q", "upgrade", "--")),
    "opkg": (("opkg",), ("opkg", "update"), ("opkg", "upgrade")),
}
_DNF_SECURITY: Final = ("dnf", "-q", "-y", "upgrade", "--security")


class UpgradePackage:
    """`package.upgrade {name}` or `{security: true}`: never installs a package that is not installed yet."""

    # After a kill the package manager may need a person: the failure is reported, nothing is tried again.
    is_repeatable = False

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """Accepts either `name`, or `security: true`."""
        if "security" not in params:
            package_name(params)
            return
        reject_unknown_params(params, "security")
        if not bool_param(params, "security"):
            raise InvalidParamsError("security: true, or a name instead")

    def plan(self, params: Params) -> ActionPlan:
        """Reads the installed version; a newer one is known only after the package lists were fetched."""
        scheme = package_scheme(self._system)
        manager = package_manager(self._system, scheme) if scheme else "this system"
        if scheme is None or (scheme != "deb" and not self._system.is_live) or not self._has_program(scheme):
            raise ActionError(f"packages of {manager} cannot be upgraded here")
        if self._system.is_live and not self._system.is_root_user:
            raise ActionError("needs root")
        if "security" in params:
            return self._plan_security(scheme)
        name = package_name(params)
        _, fetch, upgrade = _COMMANDS.get(scheme, ((), ("apt-get", "update"), ("apt-get", "install", "--only-upgrade")))
        return ActionPlan(
            before={"was": self._version(name)}, changes=f"{' '.join(fetch)}; {' '.join((*upgrade, name))}"
        )

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Fetches the package lists, then upgrades."""
        del before
        scheme = package_scheme(self._system)
        try:
            if scheme == "deb":
                self._apt(params)
            elif "security" in params:
                run(_DNF_SECURITY, seconds=_INSTALL_SECONDS)
            else:
                _, fetch, upgrade = _COMMANDS[str(scheme)]
                run(fetch, seconds=_UPDATE_SECONDS)
                run([*upgrade, package_name(params)], seconds=_INSTALL_SECONDS)
        except ExecuteError as e:
            raise ActionError(str(e)) from e

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that the version changed, or that no security update is left."""
        if "security" in params:
            pending = self._security_updates()
            return Verification(not pending, {"is": f"{len(pending)} security updates wait"})
        version = self._version(package_name(params))
        return Verification(version != before.get("was"), {"is": version})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Changes nothing: package managers do not downgrade by themselves."""
        del params
        return f"no newer version of it may be offered; it was {before.get('was', 'unknown')}"

    def _plan_security(self, scheme: str) -> ActionPlan:
        if scheme not in {"deb", "rpm"}:
            manager = package_manager(self._system, scheme)
            raise ActionError(f"{manager} does not say which updates are for security: name the packages")
        pending = self._security_updates()
        names = " ".join(pending[:_MAX_SHOWN]) + (" ..." if len(pending) > _MAX_SHOWN else "")
        # The package lists may be old: no pending update is no reason to do nothing.
        changes = f"fetch the lists, then install security updates; now: {names or 'none known'}"
        return ActionPlan(before={"was": f"{len(pending)} security updates wait"}, changes=changes)

    def _apt(self, params: Params) -> None:
        run(apt_get(self._system, "update"), seconds=_UPDATE_SECONDS, environment=UNATTENDED)
        names = self._security_updates() if "security" in params else [package_name(params)]
        if names:
            upgrade = apt_get(self._system, *_QUIET, "--only-upgrade", "install", "--", *names)
            run(upgrade, seconds=_INSTALL_SECONDS, environment=UNATTENDED)

    def _security_updates(self) -> list[str]:
        """Returns the packages for which the package manager knows a security update."""
        try:
            if package_scheme(self._system) == "deb":
                done = run(apt_get(self._system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"))
                return sorted({package.name for package in upgrades(done.stdout) if package.is_security})
            out = run(["dnf", "-q", "updateinfo", "list", "--updates", "--security"], seconds=_UPDATE_SECONDS).stdout
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        return sorted({package.name for package in dnf_security(out, {})[0]})

    @staticmethod
    def _has_program(scheme: str) -> bool:
        return shutil.which("apt-get" if scheme == "deb" else _COMMANDS[scheme][0][0]) is not None

    def _version(self, name: str) -> str:
        package = installed(self._system, name)
        if package is None:
            raise ActionError(f"package {name} is not installed")
        return package.version
