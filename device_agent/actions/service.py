"""Switches a service off: a unit of systemd, or an entry of inetd."""

from collections.abc import Mapping
from typing import Final

from device_agent import inetd
from device_agent.actions.base import ActionError, BadParamsError, Params, Plan, Verified, service_name
from device_agent.collectors.services import is_booted
from device_agent.execute import ExecuteError, run
from device_agent.system import System

_SECONDS: Final = 120.0  # a unit may take its time to stop
_KINDS: Final = (".service", ".socket")
_OWN: Final = "cordon-agent"
_STOPPED: Final = frozenset({"inactive", "failed"})
_OPENED: Final = frozenset({"enabled", "enabled-runtime"})


class DisableService:
    """`service.disable {name}`: stopped now, and not started by itself again."""

    is_repeatable = True

    def __init__(self, system: System) -> None:
        self._system = system

    def check(self, params: Params) -> None:
        """One parameter, `name`: of a unit with or without its suffix, or of an inetd entry."""
        if service_name(params).removesuffix(".service") == _OWN:
            raise BadParamsError("name: this agent does not switch itself off")

    def plan(self, params: Params) -> Plan:
        """Find what the name means, and refuse what something that runs still needs."""
        name = service_name(params)
        units = self._units(name)
        entries = [entry for entry in inetd.entries(self._system) if entry.is_called(name)]
        if not units and not entries:
            if self._is_switched_off_entry(name):
                return Plan(was={"is": "disabled, inactive"}, would="nothing", is_needed=False)
            raise ActionError(f"there is no service {name}")
        for unit, shown in units.items():
            needed_by = sorted(other for other in shown["RequiredBy"].split() if self._is_active(other))
            if needed_by:
                raise ActionError(f"{unit} is needed by {', '.join(needed_by)}")
        was = {"was": _word(units, has_entries=bool(entries))}
        steps = []
        if units:
            was["units"] = " ".join(units)
            steps.append(f"systemctl disable --now {was['units']}")
        if entries:
            was["inetd"] = " ".join(sorted({entry.service for entry in entries}))
            steps.append(f"comment out {was['inetd']} in {', '.join(sorted({str(e.file) for e in entries}))}")
        is_off = not entries and all(_is_off(shown) for shown in units.values())
        return Plan(was={**was, "is": was["was"]} if is_off else was, would="; ".join(steps), is_needed=not is_off)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Stop and disable the units, comment out the entries."""
        if "units" in was:
            self._systemctl("disable", "--now", "--", *was["units"].split())
        if "inetd" in was:
            try:
                inetd.switch_off(self._system, service_name(params))
            except OSError as e:
                raise ActionError(f"{e.filename}: {e.strerror}") from e
            inetd.reload(self._system)

    def verify(self, params: Params, was: Mapping[str, str]) -> Verified:
        """Nothing of that name is enabled or runs."""
        del was
        name = service_name(params)
        units = self._units(name)
        entries = [entry for entry in inetd.entries(self._system) if entry.is_called(name)]
        is_off = not entries and all(_is_off(shown) for shown in units.values())
        return Verified(is_off, {"is": _word(units, has_entries=bool(entries))})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Enable and start again what was enabled and ran."""
        if "units" in was:
            word = was.get("was", "")
            if "enabled" in word:
                self._systemctl("enable", "--", *was["units"].split())
            if word.endswith(", active"):
                self._systemctl("start", "--", *was["units"].split())
        if "inetd" in was:
            inetd.switch_on_again(self._system, service_name(params))
            inetd.reload(self._system)
        return "put back as it was"

    def _is_switched_off_entry(self, name: str) -> bool:
        return any(
            line.startswith(inetd.OFF) and line.removeprefix(inetd.OFF).split()[:1] == [name.removeprefix("inetd:")]
            for file in inetd.files(self._system)
            for line in file.read_text(errors="replace").splitlines()
        )

    def _units(self, name: str) -> dict[str, dict[str, str]]:
        """Known units of that name, each with what systemd says of it; none where systemd does not run."""
        if name.startswith("inetd:") or not is_booted(self._system):
            return {}
        names = [name] if name.endswith(_KINDS) else [name + kind for kind in _KINDS]
        shown = {unit: self._show(unit) for unit in names}
        return {unit: fields for unit, fields in shown.items() if fields.get("LoadState") == "loaded"}

    def _show(self, unit: str) -> dict[str, str]:
        wanted = "--property=LoadState,ActiveState,UnitFileState,RequiredBy"
        fields = {"RequiredBy": ""}
        for line in self._systemctl("show", wanted, "--", unit).splitlines():
            key, _, value = line.partition("=")
            fields[key] = value
        return fields

    def _is_active(self, unit: str) -> bool:
        return self._show(unit).get("ActiveState") == "active"

    @staticmethod
    def _systemctl(*arguments: str) -> str:
        try:
            return run(["systemctl", "--no-pager", "--no-ask-password", *arguments], seconds=_SECONDS).out
        except ExecuteError as e:
            raise ActionError(str(e)) from e


def _is_off(shown: Mapping[str, str]) -> bool:
    return shown.get("ActiveState") in _STOPPED and shown.get("UnitFileState") not in _OPENED


def _word(units: Mapping[str, Mapping[str, str]], *, has_entries: bool) -> str:
    is_enabled = has_entries or any(shown.get("UnitFileState") in _OPENED for shown in units.values())
    is_active = has_entries or any(shown.get("ActiveState") not in _STOPPED for shown in units.values())
    return f"{'enabled' if is_enabled else 'disabled'}, {'active' if is_active else 'inactive'}"
