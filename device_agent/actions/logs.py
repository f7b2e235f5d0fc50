"""`logging.persist` and `audit.enable`: a journal that survives reboots, and the kernel's audit log."""

from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, reject_unknown_params
from device_agent.actions.edit import FileAction, FileContents, require_root
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import OPENED, ServiceManager, Systemd, service_manager

_DROP_IN: Final = "/etc/systemd/journald.conf.d/99-cordon.conf"
_JOURNALD: Final = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
_UNIT: Final = "auditd.service"


class PersistLogs(FileAction):
    """`logging.persist`: systemd keeps its journal on the disk."""

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager; default: that of the system."""
        super().__init__(system)
        self._units = units

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def desired_files(self, params: Params) -> FileContents:
        """Returns a drop-in file; journald takes the last one in order of name."""
        del params
        if not any(self._system.path(path).exists() for path in _JOURNALD):
            raise ActionError("there is no journald here: this system logs in another way")
        return {_DROP_IN: "[Journal]\nStorage=persistent\n"}

    def describe_state(self, params: Params) -> str:
        del params
        return "persistent" if self._system.path(_DROP_IN).exists() else "as the distribution configures it"

    def describe_changes(self, params: Params, paths: list[str]) -> str:
        del params
        return f"write Storage=persistent to {', '.join(paths)}, restart systemd-journald"

    def activate(self, params: Params) -> None:
        """Restarts journald where it runs; it moves its journal to the disk."""
        del params
        units = self._units if self._units is not None else service_manager(self._system)
        if units is None:
            return
        try:
            units.run_verb("restart", "systemd-journald.service")
        except ExecuteError as e:
            raise ActionError(str(e)) from e


class EnableAudit:
    """`audit.enable`: starts the audit daemon, now and at each boot."""

    is_repeatable = True

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager; default: that of the system."""
        self._system = system
        self._given = units

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def plan(self, params: Params) -> ActionPlan:
        """Requires that auditd is installed: installing a package needs a person's decision."""
        del params
        require_root(self._system)
        shown = self._shown()
        if shown["LoadState"] != "loaded":
            raise ActionError("auditd is not installed")
        if self._is_on(shown):
            return ActionPlan(before={"is": _describe(shown)}, changes="nothing", is_needed=False)
        before = {"was": _describe(shown), "enabled": str(shown["UnitFileState"] in OPENED)}
        return ActionPlan(before=before, changes=f"systemctl enable --now {_UNIT}")

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        del params, before
        self._do("enable")
        self._do("start")

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del params, before
        shown = self._shown()
        return Verification(self._is_on(shown), {"is": _describe(shown)})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores only the start at boot: auditd refuses to be stopped."""
        del params
        if before.get("enabled") == "False":
            self._do("disable")
        return "put back as it was"

    def _is_on(self, shown: Mapping[str, str]) -> bool:
        # Below another root nothing runs.
        runs = shown["ActiveState"] == "active" or not isinstance(self._manager(), Systemd)
        return runs and shown["UnitFileState"] in OPENED

    def _manager(self) -> ServiceManager:
        units = self._given if self._given is not None else service_manager(self._system)
        if units is None:
            raise ActionError("auditd is started by systemd only, which does not run here")
        return units

    def _shown(self) -> Mapping[str, str]:
        try:
            return self._manager().show(_UNIT, "LoadState", "ActiveState", "UnitFileState")
        except ExecuteError as e:
            raise ActionError(str(e)) from e

    def _do(self, verb: str) -> None:
        try:
            self._manager().run_verb(verb, _UNIT)
        except ExecuteError as e:
            raise ActionError(str(e)) from e


def _describe(shown: Mapping[str, str]) -> str:
    return f"{shown['UnitFileState'] or 'not installed'}, {shown['ActiveState']}"
