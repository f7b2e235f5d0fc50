"""Switches a service off: a unit of systemd, an entry of inetd or of xinetd."""

from collections.abc import Mapping
from typing import Final

from device_agent.actions import xinetd_off
from device_agent.actions.base import ActionError, ActionPlan, InvalidParamsError, Params, Verification, service_name
from device_agent.actions.edit import FILES, keep, read, restore, write
from device_agent.host import inetd
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System
from device_agent.host.systemd import OPENED, STOPPED, ServiceManager, needed_by, units_of

_KINDS: Final = (".service", ".socket")
_OWN: Final = "cordon-agent"
_SHOWN: Final = ("LoadState", "ActiveState", "UnitFileState", "TriggeredBy")


class DisableService:
    """`service.disable {name}`: stopped now, and not started by itself again."""

    is_repeatable = True

    def __init__(self, system: System, units: ServiceManager | None = None) -> None:
        """`units`: the service manager, when it is not the system's own."""
        self._system = system
        self._given = units

    def check(self, params: Params) -> None:
        """One parameter, `name`: of a unit with or without its suffix, or of an inetd entry."""
        if service_name(params).removesuffix(".service") == _OWN:
            raise InvalidParamsError("name: this agent does not switch itself off")

    def plan(self, params: Params) -> ActionPlan:
        """Find what the name means, and refuse when something that runs would stop with it."""
        name = service_name(params)
        units = self._units(name)
        entries = self._entries(name)
        further = xinetd_off.named(self._system, name)
        if not units and not entries and not further:
            if self._is_switched_off_entry(name):
                return ActionPlan(was={"is": "disabled, inactive"}, would="nothing", is_needed=False)
            raise ActionError(f"there is no service {name}")
        self._refuse_what_is_needed(units)
        was = {"was": _word(units, has_entries=bool(entries or further))}
        steps = []
        if units:
            was["units"] = " ".join(units)
            was["enabled"] = " ".join(unit for unit, shown in units.items() if shown["UnitFileState"] in OPENED)
            was["active"] = " ".join(unit for unit, shown in units.items() if shown["ActiveState"] not in STOPPED)
            steps.append(f"systemctl disable --now {was['units']}")
        if entries:
            was["inetd"] = " ".join(sorted({entry.service for entry in entries}))
            steps.append(f"comment out {was['inetd']} in {', '.join(sorted({str(e.file) for e in entries}))}")
        if further:
            was["xinetd"] = " ".join(sorted(further))
            places = sorted(set(further.values()))
            was[FILES] = keep({place: read(self._system, place) for place in places})
            steps.append(f"disable = yes for {was['xinetd']} in {', '.join(places)}")
        is_off = not entries and not further and all(_is_off(shown) for shown in units.values())
        return ActionPlan(
            was={**was, "is": was["was"]} if is_off else was, would="; ".join(steps), is_needed=not is_off
        )

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Stop and disable the units, comment out the entries."""
        if was.get("units"):
            # What triggers a service goes first, or it would be started again in between.
            names = sorted(was["units"].split(), key=lambda unit: unit.endswith(".service"))
            self._do("disable", *names)
            self._do("stop", *names)
        if "inetd" in was:
            try:
                inetd.switch_off(self._system, service_name(params))
            except OSError as e:
                raise ActionError(f"{e.filename}: {e.strerror}") from e
            inetd.reload(self._system)
        if "xinetd" in was:
            for place, text in xinetd_off.texts(self._system, self._further(params)).items():
                write(self._system, place, text)
            xinetd_off.reload(self._system)

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Nothing of that name is enabled or runs."""
        del was
        name = service_name(params)
        units = self._units(name)
        entries = self._entries(name)
        is_offered = bool(entries or self._further(params))
        is_off = not is_offered and all(_is_off(shown) for shown in units.values())
        return Verification(is_off, {"is": _word(units, has_entries=is_offered)})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Enable and start again what was enabled and ran."""
        if was.get("enabled"):
            self._do("enable", *was["enabled"].split())
        if was.get("active"):
            self._do("start", *was["active"].split())
        if "inetd" in was:
            inetd.switch_on_again(self._system, service_name(params))
            inetd.reload(self._system)
        if "xinetd" in was:
            restore(self._system, was)
            xinetd_off.reload(self._system)
        return "put back as it was"

    def _entries(self, name: str) -> list[inetd.InetdEntry]:
        if name.startswith("xinetd:"):
            return []
        return [entry for entry in inetd.entries(self._system) if entry.is_called(name)]

    def _further(self, params: Params) -> dict[str, str]:
        return xinetd_off.named(self._system, service_name(params))

    def _refuse_what_is_needed(self, units: Mapping[str, Mapping[str, str]]) -> None:
        manager = self._manager()
        for unit, shown in units.items():
            if manager is None or shown["ActiveState"] in STOPPED:
                continue
            try:
                found = {other: by for other, by in needed_by(manager, unit).items() if other not in units}
            except ExecuteError as e:
                raise ActionError(str(e)) from e
            if found:
                told = ", ".join(other if by == unit else f"{other} (through {by})" for other, by in found.items())
                raise ActionError(f"{unit} is needed by {told}: stopping it would stop that too")

    def _is_switched_off_entry(self, name: str) -> bool:
        return any(
            line.startswith(inetd.OFF) and line.removeprefix(inetd.OFF).split()[:1] == [name.removeprefix("inetd:")]
            for file in inetd.files(self._system)
            for line in file.read_text(errors="replace").splitlines()
        )

    def _units(self, name: str) -> dict[str, Mapping[str, str]]:
        """Known units of that name, and what would start them again, each with what systemd says of it."""
        manager = self._manager()
        if name.startswith(("inetd:", "xinetd:")) or manager is None:
            return {}
        names = [name] if name.endswith(_KINDS) else [name + kind for kind in _KINDS]
        found: dict[str, Mapping[str, str]] = {}
        try:
            for unit in names:
                shown = manager.show(unit, *_SHOWN)
                if shown["LoadState"] == "loaded":
                    found[unit] = shown
                    found |= {other: manager.show(other, *_SHOWN) for other in shown["TriggeredBy"].split()}
        except ExecuteError as e:
            raise ActionError(str(e)) from e
        return found

    def _manager(self) -> ServiceManager | None:
        return self._given if self._given is not None else units_of(self._system)

    def _do(self, verb: str, *units: str) -> None:
        manager = self._manager()
        assert manager is not None  # it named the units
        try:
            manager.do(verb, *units)
        except ExecuteError as e:
            raise ActionError(str(e)) from e


def _is_off(shown: Mapping[str, str]) -> bool:
    return shown["ActiveState"] in STOPPED and shown["UnitFileState"] not in OPENED


def _word(units: Mapping[str, Mapping[str, str]], *, has_entries: bool) -> str:
    is_enabled = has_entries or any(shown["UnitFileState"] in OPENED for shown in units.values())
    is_active = has_entries or any(shown["ActiveState"] not in STOPPED for shown in units.values())
    return f"{'enabled' if is_enabled else 'disabled'}, {'active' if is_active else 'inactive'}"
