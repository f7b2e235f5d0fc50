"""`service.disable`: stops and disables a systemd unit, or an entry of inetd or xinetd."""

from collections.abc import Mapping
from typing import Final

from device_agent.actions import xinetd_off
from device_agent.actions.base import ActionError, ActionPlan, InvalidParamsError, Params, Verification, service_name
from device_agent.actions.edit import FILES, read, restore_files, to_journal, write
from device_agent.host import inetd
from device_agent.host.execute import ExecuteError
from device_agent.host.files import read_text
from device_agent.host.system import System
from device_agent.host.systemd import OPENED, STOPPED, ServiceManager, active_dependents, service_manager

_KINDS: Final = (".service", ".socket")
_OWN: Final = "cordon-agent"
_SHOWN: Final = ("LoadState", "ActiveState", "UnitFileState", "TriggeredBy")


class DisableService:
    """`service.disable {name}`: stops the service, and prevents that it is started again."""

    is_repeatable = True

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager; default: that of the system."""
        self._system = system
        self._given = units

    def check(self, params: Params) -> None:
        """Accepts `name`: a unit with or without its suffix, or an entry of inetd or xinetd."""
        if service_name(params).removesuffix(".service") == _OWN:
            raise InvalidParamsError("name: this agent does not disable itself")

    def plan(self, params: Params) -> ActionPlan:
        """Finds what the name matches; refuses when another running unit would stop too."""
        name = service_name(params)
        units = self._units(name)
        entries = self._entries(name)
        xinetd_services = xinetd_off.matching_services(self._system, name)
        if not units and not entries and not xinetd_services:
            if self._is_disabled_entry(name):
                return ActionPlan(before={"is": "disabled, inactive"}, changes="nothing", is_needed=False)
            raise ActionError(f"there is no service {name}")
        self._reject_if_required(units)
        before = {"was": _describe(units, has_entries=bool(entries or xinetd_services))}
        steps = []
        if units:
            before["units"] = " ".join(units)
            before["enabled"] = " ".join(unit for unit, shown in units.items() if shown["UnitFileState"] in OPENED)
            before["active"] = " ".join(unit for unit, shown in units.items() if shown["ActiveState"] not in STOPPED)
            steps.append(f"systemctl disable --now {before['units']}")
        if entries:
            before["inetd"] = " ".join(sorted({entry.service for entry in entries}))
            steps.append(f"comment out {before['inetd']} in {', '.join(sorted({str(e.file) for e in entries}))}")
        if xinetd_services:
            before["xinetd"] = " ".join(sorted(xinetd_services))
            paths = sorted(set(xinetd_services.values()))
            before[FILES] = to_journal({path: read(self._system, path) for path in paths})
            steps.append(f"disable = yes for {before['xinetd']} in {', '.join(paths)}")
        is_off = not entries and not xinetd_services and all(_is_off(shown) for shown in units.values())
        return ActionPlan(
            before={**before, "is": before["was"]} if is_off else before, changes="; ".join(steps), is_needed=not is_off
        )

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Disables and stops the units, and disables the entries."""
        if before.get("units"):
            # Triggers such as sockets first, or they would start the service again in between.
            names = sorted(before["units"].split(), key=lambda unit: unit.endswith(".service"))
            self._do("disable", *names)
            self._do("stop", *names)
        if "inetd" in before:
            try:
                inetd.switch_off(self._system, service_name(params))
            except OSError as e:
                raise ActionError(f"{e.filename}: {e.strerror}") from e
            inetd.reload(self._system)
        if "xinetd" in before:
            for path, text in xinetd_off.desired_files(self._system, self._xinetd_services(params)).items():
                write(self._system, path, text)
            xinetd_off.reload(self._system)

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Checks that nothing of that name is enabled or runs."""
        del before
        name = service_name(params)
        units = self._units(name)
        entries = self._entries(name)
        is_offered = bool(entries or self._xinetd_services(params))
        is_off = not is_offered and all(_is_off(shown) for shown in units.values())
        return Verification(is_off, {"is": _describe(units, has_entries=is_offered)})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Enables and starts what was enabled and ran before."""
        if before.get("enabled"):
            self._do("enable", *before["enabled"].split())
        if before.get("active"):
            self._do("start", *before["active"].split())
        if "inetd" in before:
            inetd.switch_on(self._system, service_name(params))
            inetd.reload(self._system)
        if "xinetd" in before:
            restore_files(self._system, before)
            xinetd_off.reload(self._system)
        return "put back as it was"

    def _entries(self, name: str) -> list[inetd.InetdEntry]:
        if name.startswith("xinetd:"):
            return []
        return [entry for entry in inetd.entries(self._system) if entry.matches_name(name)]

    def _xinetd_services(self, params: Params) -> dict[str, str]:
        return xinetd_off.matching_services(self._system, service_name(params))

    def _reject_if_required(self, units: Mapping[str, Mapping[str, str]]) -> None:
        manager = self._manager()
        for unit, shown in units.items():
            if manager is None or shown["ActiveState"] in STOPPED:
                continue
            try:
                dependents = {other: by for other, by in active_dependents(manager, unit).items() if other not in units}
            except ExecuteError as e:
                raise ActionError(str(e)) from e
            if dependents:
                names = ", ".join(
                    other if by == unit else f"{other} (through {by})" for other, by in dependents.items()
                )
                raise ActionError(f"{unit} is needed by {names}: stopping it would stop that too")

    def _is_disabled_entry(self, name: str) -> bool:
        return any(
            line.startswith(inetd.OFF) and line.removeprefix(inetd.OFF).split()[:1] == [name.removeprefix("inetd:")]
            for file in inetd.files(self._system)
            for line in read_text(file).splitlines()
        )

    def _units(self, name: str) -> dict[str, Mapping[str, str]]:
        """Returns the loaded units of that name and their triggers, each with its properties."""
        manager = self._manager()
        if name.startswith(("inetd:", "xinetd:")) or manager is None:
            return {}
        candidates = [name] if name.endswith(_KINDS) else [name + kind for kind in _KINDS]
        loaded: dict[str, Mapping[str, str]] = {}
        try:
            for unit in candidates:
                shown = manager.show(unit, *_SHOWN)
                if shown["LoadState"] == "loaded":
                    loaded[unit] = shown
                    loaded |= {other: manager.show(other, *_SHOWN) for other in shown["TriggeredBy"].split()}
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        return loaded

    def _manager(self) -> ServiceManager | None:
        return self._given if self._given is not None else service_manager(self._system)

    def _do(self, verb: str, *units: str) -> None:
        manager = self._manager()
        assert manager is not None  # the units are its
        try:
            manager.run_verb(verb, *units)
        except ExecuteError as e:
            raise ActionError(str(e)) from e


def _is_off(shown: Mapping[str, str]) -> bool:
    return shown["ActiveState"] in STOPPED and shown["UnitFileState"] not in OPENED


def _describe(units: Mapping[str, Mapping[str, str]], *, has_entries: bool) -> str:
    is_enabled = has_entries or any(shown["UnitFileState"] in OPENED for shown in units.values())
    is_active = has_entries or any(shown["ActiveState"] not in STOPPED for shown in units.values())
    return f"{'enabled' if is_enabled else 'disabled'}, {'active' if is_active else 'inactive'}"
