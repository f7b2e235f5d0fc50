"""Takes the watched files as they are now for good: what an operator orders after an update of theirs."""

from collections.abc import Mapping

from device_agent.actions.base import ActionError, ActionPlan, InvalidParamsError, Params, Verification
from device_agent.collectors.base import Section
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System


class RebaselineIntegrity:
    """`integrity.rebaseline`: the changes that were found become the new baseline."""

    is_repeatable = True

    def __init__(self, integrity: IntegrityCollector, system: System) -> None:
        self._integrity = integrity
        self._system = system

    def check(self, params: Params) -> None:
        """Takes no parameters: what is accepted is everything, or nothing."""
        if params:
            raise InvalidParamsError(f"{min(params)}: no such parameter")

    def plan(self, params: Params) -> ActionPlan:
        """Count what would be accepted; a damaged baseline is replaced too."""
        del params
        try:
            section = self._look()
        except FactsUnavailableError as e:
            return ActionPlan({"was": str(e)}, would="take a new baseline")
        count = int(section["changed"])
        was = {"was": f"{count} changes", "baseline_at": str(section["baseline_at"])}
        return ActionPlan(was, would=f"accept {count} changes", is_needed=count > 0)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Take the new baseline, and keep the old one beside it."""
        del params, was
        try:
            self._integrity.rebaseline(self._system)
        except OSError as e:
            raise ActionError(f"the baseline cannot be written: {e.strerror}") from e

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Nothing differs from the baseline."""
        del params, was
        try:
            section = self._look()
        except FactsUnavailableError as e:
            raise ActionError(str(e)) from e
        now = {"is": f"{section['changed']} changes", "baseline_at": str(section["baseline_at"])}
        return Verification(section["changed"] == 0, now)

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Put the old baseline back."""
        del params, was
        return (
            "the old baseline is back"
            if self._integrity.restore_previous_baseline()
            else "there was no baseline before"
        )

    def _look(self) -> Section:
        return self._integrity.collect_now(self._system)
