"""`cordon-agent do`: one action by hand on the device itself, or only what it would do."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from device_agent.errors import AgentError, ExitCode

if TYPE_CHECKING:
    from schemas.commands import ParamValue


class ActionFailedError(AgentError):
    """The action did not reach its goal."""


class ActionUsageError(AgentError):
    """No such action, or not its parameters."""

    exit_code = ExitCode.USAGE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `do` takes."""
    parser.add_argument("action", metavar="ACTION", help="such as service.disable; `list` names all of them")
    parser.add_argument("params", nargs="*", metavar="KEY=VALUE", help="its parameters")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, and change nothing")


def do(arguments: argparse.Namespace) -> None:
    """Run it, and print what was and what is as JSON.

    Raises:
        AgentError: it cannot be, or failed; what it changed was put back.
    """
    from device_agent.actions.base import (  # only now: actions import much
        ActionError,
        ConnectivityChecked,
        InvalidParamsError,
    )
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
        if arguments.dry_run or not plan.is_needed:
            _print({**plan.before, "would": plan.changes})
            return
        if isinstance(action, ConnectivityChecked) and action.broker_timeout_seconds(params, plan.before):
            raise ActionUsageError(
                "only the running agent can see whether the broker is still reached: send it as a command"
            )
    except InvalidParamsError as e:
        raise ActionUsageError(str(e)) from e
    except ActionError as e:
        raise ActionFailedError(str(e)) from e
    try:
        action.apply(params, plan.before)
        verified = action.verify(params, plan.before)
        reason = "" if verified.is_reached else "done, but the goal is not reached"
    except ActionError as e:
        reason = str(e)
    if reason:
        try:
            raise ActionFailedError(f"{reason}; {action.undo(params, plan.before)}")
        except ActionError as e:
            raise ActionFailedError(f"{reason}; and undoing it failed: {e}") from e
    _print({**plan.before, **verified.after})


def parse_params(texts: list[str]) -> "dict[str, ParamValue]":
    """`key=value` as parameters; whole numbers, true and false become what they say.

    Raises:
        ActionUsageError: another shape, or a key that is there twice.
    """
    params: dict[str, ParamValue] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key or key in params:
            raise ActionUsageError(f"{text}: a parameter is key=value, each key once")
        is_number = value.isascii() and value.isdigit() and len(value) <= 15
        params[key] = value == "true" if value in {"true", "false"} else int(value) if is_number else value
    return params


def _print(detail: Mapping[str, Any]) -> None:
    shown = {key: value for key, value in detail.items() if not key.startswith("_")}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
