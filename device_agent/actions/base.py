"""What an action is: one kind of remediation, which plans, applies, verifies, and undoes what it could not finish."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from schemas.commands import ParamValue

Params = Mapping[str, ParamValue]

# Names go into argument lists: never a leading dash, no path, no space.
_SERVICE: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,127}$")
_PACKAGE: Final = re.compile(r"^[a-z0-9][a-z0-9+._-]{0,127}$")


class ActionError(Exception):
    """The action did not reach its goal; the text is the reason that the result carries."""


class InvalidParamsError(ActionError):
    """The parameters are not what the action takes: the command is rejected, nothing was done."""


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """What an action saw and is about to do; `was` is written down before anything changes."""

    was: Mapping[str, str]
    would: str
    is_needed: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """What is there afterwards."""

    is_reached: bool
    now: Mapping[str, str] = field(default_factory=dict)


KEPT: Final = "_"
"""What a key of `was` begins with when only `undo` needs it: it stays in the journal and never travels."""


@runtime_checkable
class ConnectivityChecked(Protocol):
    """What an action has beside when it may cut the device off: it counts only once the broker was reached after it."""

    def proof_seconds(self, params: Params, was: Mapping[str, str]) -> float:
        """How long reaching the broker may take; 0: nothing can have been cut off."""
        ...

    def keep(self, params: Params, was: Mapping[str, str]) -> None:
        """The broker was reached: it stays (ActionError: it was put back meanwhile)."""
        ...


@runtime_checkable
class LongRunningAction(Protocol):
    """What an action has beside when it takes long: it has a thread of its own, tells how far it is, and goes on.

    After a restart it is applied again, whatever its command's expiry: it knows itself what that means. `apply` and
    `undo` may raise StoppedError of `device_agent.updates.errors`: the command stays unfinished until the next start.
    """

    def attend(self, command_id: str, told: Callable[[Mapping[str, str]], None]) -> None:
        """Work for this command from here on; `told` sends how far it is."""
        ...

    def settle(self, unfinished: frozenset[str]) -> None:
        """At the start: put back what none of these commands will go on with."""
        ...

    def outcome(self, params: Params) -> Mapping[str, str]:
        """What the result tells of how it ended."""
        ...


class RemediationAction(Protocol):
    """One kind of remediation; `plan` changes nothing, so a dry run is a plan."""

    @property
    def is_repeatable(self) -> bool:
        """Whether applying it again, after being killed in the middle, is safe."""
        ...

    def check(self, params: Params) -> None:
        """Refuse parameters it does not take (InvalidParamsError)."""
        ...

    def plan(self, params: Params) -> ActionPlan:
        """Look, and say what would be done (ActionError: it cannot be)."""
        ...

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Do it (ActionError: it failed)."""
        ...

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """Look whether the goal is reached."""
        ...

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Put back what a failed `apply` changed; says in words what came of it."""
        ...


def only(params: Params, *names: str) -> None:
    """Refuse every parameter but these (InvalidParamsError)."""
    others = sorted(set(params) - set(names))
    if others:
        raise InvalidParamsError(f"{others[0]}: no such parameter")


def text(params: Params, name: str, pattern: re.Pattern[str], what: str) -> str:
    """The text parameter `name`, or InvalidParamsError: `what` says what it should be."""
    value = params.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidParamsError(f"{name}: not {what}")
    return value


def number(params: Params, name: str, low: int, high: int, default: int | None = None) -> int:
    """The whole number `name` from `low` to `high`, or InvalidParamsError."""
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidParamsError(f"{name}: a whole number from {low} to {high}")
    return value


def choice(params: Params, name: str, words: Collection[str], default: str | None = None) -> str:
    """The word `name` out of `words`, or InvalidParamsError."""
    value = params.get(name, default)
    if not isinstance(value, str) or value not in words:
        raise InvalidParamsError(f"{name}: one of {', '.join(sorted(words))}")
    return value


def flag(params: Params, name: str) -> bool:
    """The yes-or-no parameter `name`, no without it, or InvalidParamsError."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise InvalidParamsError(f"{name}: true or false")
    return value


def only_name(params: Params, pattern: re.Pattern[str], what: str) -> str:
    """The `name` parameter, when it is the only one and safe to pass on.

    Raises:
        InvalidParamsError: missing, of another type, unsafe, or not alone.
    """
    name = params.get("name")
    if not isinstance(name, str) or pattern.fullmatch(name) is None:
        raise InvalidParamsError(f"name: not the name of a {what}")
    only(params, "name")
    return name


def service_name(params: Params) -> str:
    """The `name` of a service, or InvalidParamsError."""
    return only_name(params, _SERVICE, "service")


def package_name(params: Params) -> str:
    """The `name` of a package, or InvalidParamsError."""
    return only_name(params, _PACKAGE, "package")
