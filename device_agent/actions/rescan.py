"""Looks again: a fresh full report goes out even when nothing changed, so that the controller can judge anew."""

from collections.abc import Mapping

from device_agent.actions.base import ActionPlan, InvalidParamsError, Params, Verification


class Rescan:
    """Does nothing itself: every action that succeeded is followed by a scan and a full report."""

    is_repeatable = True

    def check(self, params: Params) -> None:
        """Takes no parameters."""
        if params:
            raise InvalidParamsError(f"{min(params)}: no such parameter")

    def plan(self, params: Params) -> ActionPlan:
        """A scan is always needed."""
        del params
        return ActionPlan(was={}, would="scan and send a full report")

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """The scan follows the command's end."""

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Nothing can fail."""
        del params, was
        return Verification(is_reached=True)

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Nothing to put back."""
        del params, was
        return "nothing to undo"
