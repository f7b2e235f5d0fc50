"""Switches on what keeps a record: a journal that outlives a restart, and the kernel's audit log."""

from collections.abc import Mapping
from typing import Final

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, only
from device_agent.actions.edit import FileAction, FileContents, need_root
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import OPENED, ServiceManager, Systemd, units_of

_DROP_IN: Final = "/etc/systemd/journald.conf.d/99-cordon.conf"
_JOURNALD: Final = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
_UNIT: Final = "auditd.service"


class PersistLogs(FileAction):
    """`logging.persist`: systemd's journal is kept on the disk."""

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager, when it is not the system's own."""
        super().__init__(system)
        self._units = units

    def check(self, params: Params) -> None:
        """Takes no parameters."""
        only(params)

    def wanted(self, params: Params) -> FileContents:
        """Our own file beside those of the distribution: the last one in order of name wins."""
        del params
        if not any(self._system.path(place).exists() for place in _JOURNALD):
            raise ActionError("there is no journald here: this system keeps its log in another way")
        return {_DROP_IN: "[Journal]\nStorage=persistent\n"}

    def state(self, params: Params) -> str:
        """Whether our file is there."""
        del params
        return "persistent" if self._system.path(_DROP_IN).exists() else "as the distribution has it"

    def would(self, params: Params, places: list[str]) -> str:
        """The file, and the restart that makes it count."""
        del params
        return f"write Storage=persistent to {', '.join(places)}, restart systemd-journald"

    def activate(self, params: Params) -> None:
        """Restart journald where it runs; it moves what it has to the disk."""
        del params
        units = self._units if self._units is not None else units_of(self._system)
        if units is None:
            return
        try:
            units.do("restart", "systemd-journald.service")
        except ExecuteError as e:
            raise ActionError(str(e)) from e


class EnableAudit:
    """`audit.enable`: the audit daemon starts now and by itself."""

    is_repeatable = True

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager, when it is not the system's own."""
        self._system = system
        self._given = units

    def check(self, params: Params) -> None:
        """Takes no parameters."""
        only(params)

    def plan(self, params: Params) -> ActionPlan:
        """It has to be installed: a new package is for a person to decide."""
        del params
        need_root(self._system)
        shown = self._shown()
        if shown["LoadState"] != "loaded":
            raise ActionError("auditd is not installed")
        if self._is_on(shown):
            return ActionPlan(was={"is": _word(shown)}, would="nothing", is_needed=False)
        was = {"was": _word(shown), "enabled": str(shown["UnitFileState"] in OPENED)}
        return ActionPlan(was=was, would=f"systemctl enable --now {_UNIT}")

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Enable and start it."""
        del params, was
        self._do("enable")
        self._do("start")

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Look again."""
        del params, was
        shown = self._shown()
        return Verification(self._is_on(shown), {"is": _word(shown)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Only what starts by itself is put back: auditd refuses to be stopped by hand."""
        del params
        if was.get("enabled") == "False":
            self._do("disable")
        return "put back as it was"

    def _is_on(self, shown: Mapping[str, str]) -> bool:
        # Below another root nothing runs.
        runs = shown["ActiveState"] == "active" or not isinstance(self._manager(), Systemd)
        return runs and shown["UnitFileState"] in OPENED

    def _manager(self) -> ServiceManager:
        units = self._given if self._given is not None else units_of(self._system)
        if units is None:
            raise ActionError("auditd is started by systemd only, which does not run this machine")
        return units

    def _shown(self) -> Mapping[str, str]:
        try:
            return self._manager().show(_UNIT, "LoadState", "ActiveState", "UnitFileState")
        except ExecuteError as e:
            raise ActionError(str(e)) from e

    def _do(self, verb: str) -> None:
        try:
            self._manager().do(verb, _UNIT)
        except ExecuteError as e:
            raise ActionError(str(e)) from e


def _word(shown: Mapping[str, str]) -> str:
    return f"{shown['UnitFileState'] or 'not installed'}, {shown['ActiveState']}"
