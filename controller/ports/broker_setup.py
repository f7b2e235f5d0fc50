"""How a broker is brought to what Cordon needs: planned, made, and taken back from what was before."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller.ports.broker import Change


@dataclass(frozen=True, slots=True)
class SetupWanted:
    """What the broker is to be like.

    `receive_maximum`: messages the controller wants in flight (0: leave the limits). `username` and `password` are the
    controller's own at the broker, empty where it has none. The last two change what devices may do or are called, so
    they are asked for by name.
    """

    controller_id: str
    receive_maximum: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    client_id_from_certificate: bool = False
    deny_unmatched: bool = False


@dataclass(frozen=True, slots=True)
class ByHand:
    """Something that only whoever runs the broker can do: why, and the configuration to add there."""

    what: str
    why: str
    configuration: str


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What would change, in order, and what is left to do by hand."""

    changes: tuple[Change, ...]
    by_hand: tuple[ByHand, ...]


@dataclass(frozen=True, slots=True)
class KeptSetup:
    """What was before the first setup that was not undone (only the adapter reads it), and what was wanted."""

    at: float
    before: str
    client_id_from_certificate: bool
    deny_unmatched: bool


# Called with the state before, ahead of the first change; it is durable once this returns.
KeepBefore = Callable[[str], Awaitable[None]]


class BrokerSetup(Protocol):
    """The broker's settings. Errors are `BrokerError` and its kinds."""

    async def changes(self, wanted: SetupWanted) -> Sequence[Change]:
        """What is missing; nothing is written."""
        ...

    async def plan(self, wanted: SetupWanted) -> SetupPlan:
        """The same, with what is left to do by hand."""
        ...

    async def apply(self, wanted: SetupWanted, keep: KeepBefore, *, safe_only: bool = False) -> Sequence[Change]:
        """Make the changes of `plan`, or only those without danger; those that were made."""
        ...

    async def plan_undo(self, before: str) -> Sequence[Change]:
        """What taking it back would change; nothing is written."""
        ...

    async def undo(self, before: str) -> Sequence[str]:
        """Put things back as they were; what had to be left, in words."""
        ...


class SetupStore(Protocol):
    """Keeps what was before a setup, until it is undone."""

    async def kept(self) -> KeptSetup | None:
        """What is kept; `None` if the broker was never set up, or it was undone."""
        ...

    async def keep(self, setup: KeptSetup) -> None:
        """Keep it; of a setup that is kept already the first `at` and `before` stay, and what was wanted adds up."""
        ...

    async def forget(self) -> None:
        """It was undone."""
        ...
