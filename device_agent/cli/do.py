"""`cordon-agent do`: runs one action on the device itself, or prints what it would do."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from device_agent.errors import AgentError, ExitCode

if TYPE_CHECKING:
    from device_agent.actions.base import ActionPlan, RemediationAction
    from schemas.commands import ParamValue


class ActionFailedError(AgentError):
    """The action did not reach its goal."""


class ActionUsageError(AgentError):
    """There is no such action, or it does not accept the parameters."""

    exit_code = ExitCode.USAGE


def add_parser(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the noun `do`."""
    parser = nouns.add_parser(
        "do",
        help="run one action on this device",
        description="Run one action on this device and verify it; a failed one is undone. Prints the state before "
        "and after.",
    )
    parser.add_argument("action", metavar="ACTION", help="such as service.disable; `list` prints all of them")
    parser.add_argument("params", nargs="*", metavar="KEY=VALUE", help="its parameters")
    parser.add_argument("--dry-run", action="store_true", help="print what it would do, and change nothing")


def do(arguments: argparse.Namespace) -> None:
    """Runs an action, and prints the state before and after as JSON.

    Raises:
        AgentError: the action is impossible, or failed and was undone.
    """
    from device_agent.actions.base import ActionError, InvalidParamsError  # actions import much
    from device_agent.actions.registry import actions
    from device_agent.host.system import System

    known = actions(System(is_root_user=os.geteuid() == 0))
    if arguments.action == "list":
        sys.stdout.write("\n".join(sorted(known)) + "\n")
        return
    action = known.get(arguments.action)
    if action is None:
        raise ActionUsageError(f"no action {arguments.action}: there are {', '.join(sorted(known))}")
    params = parse_params(arguments.params)
    try:
        action.check(params)
        plan = action.plan(params)
    except InvalidParamsError as e:
        raise ActionUsageError(str(e)) from e
    except ActionError as e:
        raise ActionFailedError(str(e)) from e
    if arguments.dry_run or not plan.is_needed:
        _print_json({**plan.before, "would": plan.changes})
    else:
        _print_json({**plan.before, **_apply(action, params, plan)})


def _apply(action: "RemediationAction", params: "Mapping[str, ParamValue]", plan: "ActionPlan") -> Mapping[str, str]:
    from device_agent.actions.base import ActionError, ConnectivityChecked

    if isinstance(action, ConnectivityChecked) and action.broker_timeout_seconds(params, plan.before):
        raise ActionUsageError(
            "only the running agent can check whether the broker is still reachable: send it as a command"
        )
    try:
        action.apply(params, plan.before)
        verification = action.verify(params, plan.before)
        if verification.is_reached:
            return verification.after
        reason = "done, but the goal is not reached"
    except ActionError as e:
        reason = str(e)
    try:
        outcome = action.undo(params, plan.before)
    except ActionError as e:
        raise ActionFailedError(f"{reason}; and undoing it failed: {e}") from e
    raise ActionFailedError(f"{reason}; {outcome}")


def parse_params(texts: list[str]) -> "dict[str, ParamValue]":
    """Parses `key=value` texts; whole numbers, true and false become values of their type.

    Raises:
        ActionUsageError: another form, or a repeated key.
    """
    params: dict[str, ParamValue] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key or key in params:
            raise ActionUsageError(f"{text}: a parameter is key=value, each key once")
        is_number = value.isascii() and value.isdigit() and len(value) <= 15
        params[key] = value == "true" if value in {"true", "false"} else int(value) if is_number else value
    return params


def _print_json(detail: Mapping[str, Any]) -> None:
    public = {key: value for key, value in detail.items() if not key.startswith("_")}
    sys.stdout.write(json.dumps(public, indent=2) + "\n")
