"""What the acts and looks of one plan work with: the calls, what is wished, and what was found on the way."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import Shared
from controller.adapters.emqx.containment.verification import HOLD_SECONDS, Nodes, Record, until_holds
from controller.ports.broker import KeepRules, KeepSubscriptions, KeptSubscription, Rules, keep_no_subscriptions
from controller.ports.clock import Clock


async def keep_no_rules(_rules: Rules) -> None:
    """For plans that write over no rules but Cordon's own."""


@dataclass(frozen=True, slots=True)
class Place:
    """The broker that all scenes play at, and what they share."""

    api: EmqxApi
    nodes: Nodes
    clock: Clock
    shared: Shared

    @classmethod
    def at(cls, api: EmqxApi, clock: Clock) -> "Place":
        """A broker of which nothing is known yet."""
        return cls(api, Nodes(clock), clock, Shared(api))


@dataclass(frozen=True, slots=True)
class Wish:
    """What the decision gives a plan: the ban's words and end, who keeps what is written over, what was kept."""

    by: str = ""
    reason: str = ""
    until: float | None = None
    keep_rules: KeepRules = keep_no_rules
    keep_subscriptions: KeepSubscriptions = keep_no_subscriptions
    kept_rules: Rules = ()
    kept_subscriptions: tuple[KeptSubscription, ...] = ()


@dataclass(slots=True)
class Found:
    """What acts found and later ones need. `restored`: the rules the client has once it is let out."""

    ban_is_outdated: bool = False
    restored: Rules = ()
    gave_rules_back: bool = False
    settings_trouble: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """One subject's plan under way; `api` already notes its steps in `record`.

    `subject` is a client id or a user name: which of them, only the acts and looks know that are done with it.
    """

    api: EmqxApi
    nodes: Nodes
    clock: Clock
    record: Record
    subject: str
    deadline: float  # monotonic seconds
    wish: Wish
    shared: Shared
    found: Found = field(default_factory=Found)

    @classmethod
    def of(cls, place: Place, subject: str, wish: Wish) -> "Scene":
        """A scene with an empty record, of a subject that was checked."""
        record, clock = Record(), place.clock
        deadline = clock.monotonic() + HOLD_SECONDS
        return cls(place.api.noting(record.add), place.nodes, clock, record, subject, deadline, wish, place.shared)

    def urgently(self) -> "Scene":
        """The same, its calls before those that are not urgent."""
        return replace(self, api=self.api.urgently())

    async def until_holds(
        self, look: Callable[[], Awaitable[list[str]]], repair: Callable[[], Awaitable[None]]
    ) -> list[str]:
        """Look and repair until nothing is missing or the sequence's time is up; what is missing in the end."""
        return await until_holds(self.clock, self.deadline, look, repair)
