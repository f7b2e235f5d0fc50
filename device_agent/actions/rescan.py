"""`rescan`: makes the agent scan and send a full report even when nothing changed."""

from collections.abc import Mapping

from device_agent.actions.base import ActionPlan, Params, Verification, reject_unknown_params


class Rescan:
    """Does nothing itself: a scan and a full report follow every successful command."""

    is_repeatable = True

    def check(self, params: Params) -> None:
        reject_unknown_params(params)

    def plan(self, params: Params) -> ActionPlan:
        del params
        return ActionPlan(before={}, changes="scan and send a full report")

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Does nothing: the scan follows the command."""

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del params, before
        return Verification(is_reached=True)

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        del params, before
        return "nothing to undo"
