"""How a broker is brought to what Cordon needs: planned, made, and taken back from what was before."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One change to the broker's settings, shown before it is made."""

    what: str
    before: str
    after: str
    # Why making it without being asked could do harm; empty where it cannot.
    danger: str = ""


@dataclass(frozen=True, slots=True)
class DesiredSetup:
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
class ManualStep:
    """Something that only whoever runs the broker can do: why, and the configuration to add there."""

    what: str
    why: str
    configuration: str


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What would change, in order, and what is left to do by hand."""

    changes: tuple[SettingChange, ...]
    by_hand: tuple[ManualStep, ...]


@dataclass(frozen=True, slots=True)
class SavedSetup:
    """What was before the first setup that was not undone (only the adapter reads it), and what was wanted."""

    at: float
    before: str
    client_id_from_certificate: bool
    deny_unmatched: bool


# Called with the state before, ahead of the first change; it is durable once this returns.
SavePreviousSetup = Callable[[str], Awaitable[None]]


class BrokerSetup(Protocol):
    """The broker's settings. Errors are `BrokerError` and its kinds."""

    async def changes(self, wanted: DesiredSetup) -> Sequence[SettingChange]:
        """What is missing; nothing is written."""
        ...

    async def plan(self, wanted: DesiredSetup) -> SetupPlan:
        """The same, with what is left to do by hand."""
        ...

    async def apply(
        self, wanted: DesiredSetup, save: SavePreviousSetup, *, safe_only: bool = False
    ) -> Sequence[SettingChange]:
        """Make the changes of `plan`, or only those without danger; those that were made."""
        ...

    async def plan_undo(self, before: str) -> Sequence[SettingChange]:
        """What taking it back would change; nothing is written."""
        ...

    async def undo(self, before: str) -> Sequence[str]:
        """Put things back as they were; what had to be left, in words."""
        ...


class SetupStore(Protocol):
    """Keeps what was before a setup, until it is undone."""

    async def kept(self) -> SavedSetup | None:
        """What is kept; `None` if the broker was never set up, or it was undone."""
        ...

    async def keep(self, setup: SavedSetup) -> None:
        """Keep it; of a setup that is kept already the first `at` and `before` stay, and what was wanted adds up."""
        ...

    async def forget(self) -> None:
        """It was undone."""
        ...
