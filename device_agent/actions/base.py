"""The interfaces of actions (`check`, `plan`, `apply`, `verify`, `undo`), and helpers that validate parameters."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from schemas.commands import ParamValue

Params = Mapping[str, ParamValue]
ProgressCallback = Callable[[Mapping[str, str]], None]
"""Publishes the progress of a long-running command; the mapping is the detail of its result."""

JOURNAL_ONLY: Final = "_"
"""Prefix of the keys of `before` that only `undo` needs: they stay in the journal and are never published."""

# Names go into argument lists: never a leading dash, no path, no space.
_SERVICE: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127}$")
_PACKAGE: Final = re.compile(r"^[a-z0-9][a-z0-9+._-]{0,127}$")


class ActionError(Exception):
    """The action did not reach its goal; the text is the reason in the command's result."""


class InvalidParamsError(ActionError):
    """The action does not accept the parameters: the command is rejected, nothing was done."""


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """The state `before` the action, which is written down before anything changes, and the `changes` in words."""

    before: Mapping[str, str]
    changes: str
    is_needed: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """The state after an action."""

    is_reached: bool
    after: Mapping[str, str] = field(default_factory=dict)


class RemediationAction(Protocol):
    """One kind of remediation. `plan` changes nothing, so a dry run is a plan."""

    @property
    def is_repeatable(self) -> bool:
        """Whether `apply` may run again after the agent was killed during it."""
        ...

    def check(self, params: Params) -> None:
        """Rejects parameters that the action does not accept (InvalidParamsError)."""
        ...

    def plan(self, params: Params) -> ActionPlan:
        """Returns what `apply` would do (ActionError: it is impossible)."""
        ...

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        """Makes the changes (ActionError)."""
        ...

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        """Reads whether the goal is reached."""
        ...

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Restores the state before a failed `apply`; returns the outcome in words."""
        ...


@runtime_checkable
class ConnectivityChecked(Protocol):
    """An action that may cut the device off: it succeeds only once the broker was reached after it."""

    def broker_timeout_seconds(self, params: Params, before: Mapping[str, str]) -> float:
        """Returns how long reaching the broker may take; 0: the action cannot cut the device off."""
        ...

    def commit(self, params: Params, before: Mapping[str, str]) -> None:
        """Makes the change permanent, as the broker was reached (ActionError: it was undone meanwhile)."""
        ...


@runtime_checkable
class LongRunningAction(Protocol):
    """An action with a thread of its own, which reports progress and continues after a restart.

    After a restart it is applied again whatever the expiry of its command, and decides itself what that means. `apply`
    and `undo` of the bound action may raise StoppedError: the command stays unfinished until the next start.
    """

    def bind(self, command_id: str, on_progress: ProgressCallback) -> RemediationAction:
        """Returns the action for one command."""
        ...

    def recover(self, unfinished: frozenset[str]) -> None:
        """Undoes, at the start, what none of the commands with these ids continues."""
        ...

    def result_detail(self, params: Params) -> Mapping[str, str]:
        """Returns the detail of the final result."""
        ...


Action = RemediationAction | LongRunningAction


def reject_unknown_params(params: Params, *names: str) -> None:
    """Rejects every parameter but `names` (InvalidParamsError)."""
    others = sorted(set(params) - set(names))
    if others:
        raise InvalidParamsError(f"{others[0]}: no such parameter")


def text_param(params: Params, name: str, pattern: re.Pattern[str], what: str) -> str:
    """Returns the text parameter `name`; `what` describes a valid one (InvalidParamsError)."""
    value = params.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidParamsError(f"{name}: not {what}")
    return value


def int_param(params: Params, name: str, low: int, high: int, default: int | None = None) -> int:
    """Returns the whole number `name` from `low` to `high` (InvalidParamsError)."""
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidParamsError(f"{name}: a whole number from {low} to {high}")
    return value


def choice_param(params: Params, name: str, choices: Collection[str], default: str | None = None) -> str:
    """Returns the parameter `name`, one of `choices` (InvalidParamsError)."""
    value = params.get(name, default)
    if not isinstance(value, str) or value not in choices:
        raise InvalidParamsError(f"{name}: one of {', '.join(sorted(choices))}")
    return value


def bool_param(params: Params, name: str) -> bool:
    """Returns the boolean parameter `name`, False when it is absent (InvalidParamsError)."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise InvalidParamsError(f"{name}: true or false")
    return value


def service_name(params: Params) -> str:
    """Returns the only parameter `name`, a service that is safe in argument lists (InvalidParamsError)."""
    return require_name(params, _SERVICE, "service")


def package_name(params: Params) -> str:
    """Returns the only parameter `name`, a package that is safe in argument lists (InvalidParamsError)."""
    return require_name(params, _PACKAGE, "package")


def require_name(params: Params, pattern: re.Pattern[str], what: str) -> str:
    name = text_param(params, "name", pattern, f"the name of a {what}")
    reject_unknown_params(params, "name")
    return name
