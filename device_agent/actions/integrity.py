"""`integrity.rebaseline`: takes the watched files as they are now as the baseline, after an intended change."""

from collections.abc import Mapping

from device_agent.actions.base import ActionError, ActionPlan, Params, Verification, reject_unknown_params
from device_agent.collectors.base import Section
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System


class RebaselineIntegrity:
    """Makes the detected changes the new baseline, all of them or none."""

    is_repeatable = True

    def __init__(self, integrity: IntegrityCollector, system: System) -> None:
        self._integrity = integrity
        self._system = system

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def plan(self, params: Params) -> ActionPlan:
        """Counts the changes to accept; a damaged baseline is replaced too."""
        del params
        try:
            section = self._changes()
        except FactsUnavailableError as e:
            return ActionPlan({"was": str(e)}, "take a new baseline")
        count = int(section["changed"])
        before = {"was": f"{count} changes", "baseline_at": str(section["baseline_at"])}
        return ActionPlan(before, f"accept {count} changes", is_needed=count > 0)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Writes the new baseline, and keeps the former one for `undo`."""
        del params, before
        try:
            self._integrity.rebaseline(self._system)
        except OSError as e:
            raise ActionError(f"the baseline cannot be written: {e.strerror}") from e

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Compares the files with the new baseline."""
        del params, before
        try:
            section = self._changes()
        except FactsUnavailableError as e:
            raise ActionError(str(e)) from e
        after = {"is": f"{section['changed']} changes", "baseline_at": str(section["baseline_at"])}
        return Verification(section["changed"] == 0, after)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores the former baseline."""
        del params, before
        was_restored = self._integrity.restore_previous_baseline()
        return "the old baseline is back" if was_restored else "there was no baseline before"

    def _changes(self) -> Section:
        return self._integrity.collect_now(self._system)
