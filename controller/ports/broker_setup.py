"""The setup of the broker for Cordon: planned, applied, and undone from the saved settings."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One change to the broker's settings, shown before it is made."""

    what: str
    before: str
    after: str
    # The harm that it could do when it is applied without a request; empty where there is none.
    danger: str = ""


@dataclass(frozen=True, slots=True)
class DesiredSetup:
    """The settings that the broker should have.

    `receive_maximum`: messages that the controller wants in flight (0: its limits do not matter). `ports`: those at
    which it connects to the broker. `username` and `password` are the controller's own at the broker, empty where it
    has none. `others`: client ids of the other controllers, `other_users` their user names; `shares`: they share the
    fleet's messages. The last two change the rights or names of devices, so an operator requests them by name.
    """

    controller_id: str
    receive_maximum: int = 0
    ports: frozenset[int] = frozenset()
    username: str = ""
    password: str = field(default="", repr=False)
    others: tuple[str, ...] = ()
    other_users: tuple[str, ...] = ()
    shares: bool = False
    client_id_from_certificate: bool = False
    deny_unmatched: bool = False


# Scopes of an EMQX API key (6.1.2 and later) that a running controller needs. Setup and audit also read `/configs` and
# `/listeners`, whose scope EMQX combines with no other: they need a key without scopes.
SERVING_SCOPES: Final = ("connections", "access_control", "publish", "monitoring", "cluster_operations")
NO_MATCH_STEP: Final = "default when no rule matches"


@dataclass(frozen=True, slots=True)
class ManualStep:
    """A change that the broker's administrator has to make: why, and the configuration to add."""

    what: str
    why: str
    configuration: str


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """The changes, in order, and the manual steps that are left."""

    changes: tuple[SettingChange, ...]
    by_hand: tuple[ManualStep, ...]

    @property
    def leaves_unmatched_allowed(self) -> bool:
        """Whether what no rule matches stays allowed."""
        return any(step.what == NO_MATCH_STEP for step in self.by_hand)


@dataclass(frozen=True, slots=True)
class SavedSetup:
    """The settings before the first setup that was not undone (only the adapter reads them), and what was wanted.

    `undoing`: an undo has begun and not ended; the setup is not wanted any more.
    """

    at: float
    before: str
    client_id_from_certificate: bool
    deny_unmatched: bool
    undoing: bool = False


# Called with the settings before the first change is made; they are durable once it returns.
SavePreviousSetup = Callable[[str], Awaitable[None]]


class BrokerSetup(Protocol):
    """The broker's settings. Errors are `BrokerError` and its kinds."""

    async def changes(self, wanted: DesiredSetup) -> Sequence[SettingChange]:
        """The changes that are needed; writes nothing."""
        ...

    async def plan(self, wanted: DesiredSetup) -> SetupPlan:
        """The changes with the manual steps; writes nothing."""
        ...

    async def apply(
        self, wanted: DesiredSetup, save: SavePreviousSetup, *, safe_only: bool = False
    ) -> Sequence[SettingChange]:
        """Makes the changes of `plan`, or only those without danger; returns those that were made."""
        ...

    async def plan_undo(self, before: str, others: Sequence[str] = ()) -> Sequence[SettingChange]:
        """What `undo` would change; writes nothing."""
        ...

    async def undo(self, before: str, others: Sequence[str] = ()) -> Sequence[str]:
        """Restores the saved settings; returns what had to stay, and why.

        `others`: client ids of the other controllers, whose rules go as well.
        """
        ...


class SetupStore(Protocol):
    """Stores the settings before a setup, until it is undone."""

    async def kept(self) -> SavedSetup | None:
        """`None` if the broker was never set up, or the setup was undone."""
        ...

    async def keep(self, setup: SavedSetup) -> None:
        """Stores a setup; if one is stored, its `at` and `before` stay, and its requested settings are kept too.

        A begun undo is cancelled.
        """
        ...

    async def begin_undo(self) -> None:
        """Marks the stored setup as being undone."""
        ...

    async def forget(self) -> None:
        """Deletes the stored setup."""
        ...
